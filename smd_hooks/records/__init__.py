"""What a run leaves on disk: ``<work_dir>/<timestamp>/smd/``; and what a suite has planned."""

from .reader import Launch, read_launch
from .state import RunState, read_state, write_state
from .suite import PlannedRun, read_suite, write_suite
from .writer import RecordWriter

__all__ = [
    "Launch",
    "PlannedRun",
    "RecordWriter",
    "RunState",
    "read_launch",
    "read_state",
    "read_suite",
    "write_state",
    "write_suite",
]
