"""What a run leaves on disk: ``<work_dir>/<timestamp>/smd/``."""

from .reader import Launch, read_launch
from .state import RunState, read_state, write_state
from .writer import RecordWriter

__all__ = ["Launch", "RecordWriter", "RunState", "read_launch", "read_state", "write_state"]
