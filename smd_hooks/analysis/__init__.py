"""From records to tables and reports. pandas, no torch; nothing of a run is executed.

Rooms, each importing from those before it only: agreement, diagnosis, reading, claims, table,
report, figures. forecast stands beside them: it speaks of runs that do not exist yet.
"""

from .agreement.prediction import predict
from .agreement.scores import score
from .claims.ledger import ledger
from .diagnosis.diagnose import diagnose
from .reading.runs import Run, load_runs
from .table.formats import render_terminal, write_table
from .table.grouping import by_columns, compare, over_seeds
from .table.table import agreement_table

__all__ = [
    "Run",
    "agreement_table",
    "by_columns",
    "compare",
    "diagnose",
    "ledger",
    "load_runs",
    "over_seeds",
    "predict",
    "render_terminal",
    "score",
    "write_table",
]
