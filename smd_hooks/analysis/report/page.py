"""Writes the page: one HTML file that holds its data, its code and its styles."""

from __future__ import annotations

import base64
import hashlib
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from ...records.plain_text import one_line
from ...records.whole_files import check_place, whole_file
from ..reading.run import Run
from ..table.table import agreement_table
from .embedding import embed
from .run_data import describe_run, describe_unreadable, median_ratio
from .sweep_data import describe_sweep
from .sweeps import find_sweeps
from .table_html import cells, columns

CURVE_POINTS = 500_000
"""Points per quantity in a whole report, about: 33 runs of 50 layers of 300 points."""
COMPARED = 8
"""Runs that are compared at first: as many as there are colours."""
NEEDS = "a report needs plotly and jinja2: pip install 'smd-hooks[report]'"
SCRIPTS = ("theme.js", "plots.js", "sweeps.js", "tables.js", "page.js")
"""Run in this order, after plotly."""


def write_report(runs: Sequence[Run], path: str | os.PathLike[str]) -> None:
    """Write one self-contained HTML file about the runs.

    It works without a network and from one run to hundreds: a table of all runs; for one
    run at a time the angular updates Δ beside their predictions, a heat map of Δ/Δ*, norms,
    metrics, learning-rate stages and the diagnosis of each layer; the medians of Δ/Δ* of
    several runs in one plot; and where a suite ran a grid of learning rates and another
    option, such as the warmup, what came of it, and how large the first updates were. A run
    without records, or that cannot be read, says so in place of its plots.

    Args:
        runs: As :func:`smd_hooks.load_runs` returns them.
        path: The file.

    Raises:
        ImportError: plotly or jinja2 is missing.
        OSError: The file cannot be written; one that was there is as it was.
    """
    try:
        from jinja2 import Environment
        from plotly.offline import get_plotlyjs
    except ImportError as missing:
        raise ImportError(NEEDS) from missing
    check_place(Path(path))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    scripts = [get_plotlyjs(), *map(_asset, SCRIPTS)]
    tables, blocks, medians = [], [], []
    for run in runs:
        with run.briefly():
            table, data = _read(run, CURVE_POINTS // len(runs))
        tables.append(table)
        blocks.append(embed(data))
        medians.append(median_ratio(data))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"run": []})
    shown = columns(table)
    drawn = [i for i, median in enumerate(medians) if median is not None]
    page = environment.from_string(_asset("page.html")).generate(
        columns=shown,
        rows=[(one_line(row["run"]), cells(row, shown)) for row in table.to_dict("records")],
        drawn=drawn,
        compared=drawn[:COMPARED],
        blocks=blocks,
        medians=embed(medians),
        sweeps=_sweeps(runs),
        scripts=scripts,
        style=_asset("page.css"),
        policy=" ".join(map(_allow, scripts)),
    )
    with whole_file(Path(path)) as file:
        file.writelines(page)


def _read(run: Run, budget: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A run's row of the table, and what its part of the page shows."""
    with suppress(Exception):  # told below, where there is a row to tell it beside
        _ = run.diagnosis  # asked for first: what comes of it serves row and curves
    table = agreement_table([run])
    row = table.iloc[0].to_dict()
    try:
        return table, describe_run(run, row, budget)
    except Exception as error:  # other people's files: no run may cost the others their place
        warnings.warn(f"{run.folder}: no curves ({error!r})", stacklevel=3)
        return table, describe_unreadable(run, row, error)


def _sweeps(runs: Sequence[Run]) -> list[str]:
    blocks = []
    for sweep in find_sweeps(runs):
        try:
            blocks.append(embed(describe_sweep(sweep)))
        except Exception as error:  # other people's files, as above
            warnings.warn(f"{one_line(sweep.experiment)}: no sweep ({error!r})", stacklevel=3)
    return blocks


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text("utf-8")


def _allow(script: str) -> str:
    """The script in a content security policy: what is not named there does not run."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
