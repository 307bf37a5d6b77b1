"""From records to a table: find runs, score them, show them. pandas, no torch."""

from .agreement import predict, score
from .diagnosis import diagnose
from .runs import Run, load_runs
from .table import result_table, write_table

__all__ = ["Run", "diagnose", "load_runs", "predict", "result_table", "score", "write_table"]
