"""The result table: one row per run."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pandas as pd

from ...records.plain_text import one_line
from ...records.schema import FOLDER
from ..diagnosis.summary import summarize
from ..reading.run import Run
from ..reading.scalars import METRICS
from .setting import describe_config

COLUMNS = (
    *("run", "status", "task", "dataset", "model", "optimizer", "lr", "weight_decay"),
    *("batch_size", "iters", "seed", *METRICS, "si_params", "angle_ratio", "angle_ratio_p05"),
    *("angle_ratio_p95", "in_equilibrium", "trajectory_error", "norm_ratio", "verdict"),
)
_WORTH_A_PROCESS = 16
"""Runs from which on processes save more time than starting them costs."""
_LONGEST_CELL = 300


def agreement_table(runs: Sequence[Run], processes: int = 1) -> pd.DataFrame:
    """Build the table, one row per run, with :data:`COLUMNS`.

    Accuracy is in percent and mAP a fraction, as MMEngine logs them; what a run does
    not have is empty. ``angle_ratio`` is an a-priori prediction put to the test,
    ``trajectory_error`` a consistency test (see :mod:`smd_hooks.analysis.agreement.prediction`).

    One run's samples are in memory at a time, in each process.

    Args:
        runs: What :func:`load_runs` returned.
        processes: How many share many runs. With more than 1 the caller's main module must
            be importable without side effects, as for any spawned process.
    """
    rows = list(_rows(runs, processes))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(runs: Sequence[Run], processes: int) -> Iterator[dict[str, Any]]:
    answers: Iterable[tuple[dict[str, Any], list[str]]]
    if processes > 1 and len(runs) >= _WORTH_A_PROCESS:
        # spawned: a fork would copy the locks of pyarrow's threads, perhaps held
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(processes, mp_context=context) as pool:
                answers = list(pool.map(_row_and_warnings, runs, chunksize=4))
        except (BrokenProcessPool, OSError):  # no room for processes: one after the other
            answers = map(_row_and_warnings, runs)
    else:
        answers = map(_row_and_warnings, runs)
    for row, messages in answers:
        for message in messages:
            warnings.warn(message, stacklevel=3)
        yield row


def _row_and_warnings(run: Run) -> tuple[dict[str, Any], list[str]]:
    """The row, and what was warned of: another process's warnings are not heard."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        row = table_row(run)
    return row, [str(w.message) for w in caught if issubclass(w.category, UserWarning)]


def table_row(run: Run) -> dict[str, Any]:
    """Return a run's row; what cannot be scored has one that says so, and a warning."""
    row = {
        "run": run.name,
        "status": run.status,
        "iters": run.iterations,
        **describe_config(run),
        **run.scalars.metrics,
        **_agreement(run),
    }
    return {
        name: one_line(value, _LONGEST_CELL) if isinstance(value, str) else value
        for name, value in row.items()
    }


def _agreement(run: Run) -> dict[str, Any]:
    if run.status == "missing":
        return {"verdict": "nothing on disk"}
    try:
        with run.briefly():
            agreement = summarize(run.scores, run.weights, run.measured, run.diagnosis)
    except Exception as error:  # other people's files: no run may cost the others their rows
        where = run.launches[-1].folder / FOLDER if run.launches else run.folder
        warnings.warn(f"{one_line(where)}: not readable ({error!r})", stacklevel=2)
        agreement = {"verdict": f"not readable: {error!r}"}
    if run.status == "failed":
        agreement["verdict"] = f"failed: {run.failure}"
    elif run.problem and not run.measured:
        agreement["verdict"] = f"not readable: {run.problem}"
    return agreement
