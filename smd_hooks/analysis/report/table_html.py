"""The run table as the page shows it: headings with units, cells that sort as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .run_data import FACTS, show


@dataclass(frozen=True)
class Column:
    """A column: its name in the table, its heading here, and what it means.

    Attributes:
        name: As ``smd-hooks table`` has it.
        heading: With its unit.
        meaning: One sentence, or empty.
        extra: Whether it is out of sight until all columns are asked for.
        style: Class of its cells in page.css.
    """

    name: str
    heading: str
    meaning: str
    extra: bool
    style: str


@dataclass(frozen=True)
class Cell:
    """A cell: what it shows, a smaller second line, and what it sorts by (empty: last)."""

    text: str
    below: str = ""
    key: str = ""


_HEADINGS = {
    "accuracy/top1": ("top-1 [%]", "Validation accuracy."),
    "accuracy/top5": ("top-5 [%]", "Validation accuracy among the five best guesses."),
    "coco/bbox_mAP": ("box mAP", "COCO mean average precision of boxes, a fraction."),
    "coco/segm_mAP": ("mask mAP", "COCO mean average precision of masks, a fraction."),
    "val/loss": ("val. loss", "Validation loss."),
    "si_params": ("SI layers", "Weight matrices measured as scale-invariant, of all."),
    "angle_ratio": (
        "Δ/Δ*",
        "Measured over predicted angular update at the end: median of the scale-invariant "
        "layers, and where the middle nine tenths of them lie. A prediction put to the test.",
    ),
    "in_equilibrium": ("within 5 %", "Share of the layers whose Δ is within 5 % of Δ*."),
    "trajectory_error": ("trajectory error", "Median |log(Δ over the law's)|: a consistency test."),
    "norm_ratio": ("r/r*", "Median norm over its equilibrium norm."),
    "verdict": ("verdict", ""),
}
_EXTRA = {*FACTS, "angle_ratio_p05", "angle_ratio_p95"} - {"si_params"}


def columns(table: pd.DataFrame) -> list[Column]:
    """Return the columns to show: all but the run's name and those that are empty."""
    known = [c for c in table.columns if c != "run" and table[c].map(show).ne("").any()]
    shown = []
    for name in known:
        heading, meaning = _HEADINGS.get(name, (name, ""))
        shown.append(Column(name, heading, meaning, name in _EXTRA, _style(table, name)))
    return shown


def _style(table: pd.DataFrame, name: str) -> str:
    if name in ("status", "verdict"):
        return {"status": "state", "verdict": "words"}[name]
    return "" if any(isinstance(value, str) for value in table[name]) else "number"


def cells(row: Mapping[str, Any], shown: Sequence[Column]) -> list[tuple[Column, Cell]]:
    """Return a row's cells, each with its column."""
    return [(column, _cell(row, column.name)) for column in shown]


def _cell(row: Mapping[str, Any], name: str) -> Cell:
    value: Any = row.get(name)
    text = show(value)
    if not text or isinstance(value, str):
        return Cell(text, key=text)
    number = float(value)
    key = repr(number) if math.isfinite(number) else ""
    if name == "in_equilibrium":
        return Cell(f"{100 * number:.0f} %", key=key)
    if name in ("angle_ratio", "norm_ratio", "trajectory_error"):
        ends = [show_two(row.get(f"{name}_{end}")) for end in ("p05", "p95")]
        return Cell(show_two(number), "–".join(ends) if all(ends) else "", key)
    return Cell(text, key=key)


def show_two(value: Any) -> str:
    """Write a ratio or a relative error: two decimals, or two digits where that is more.

    >>> show_two(0.9876), show_two(0.00123), show_two(None)
    ('0.99', '0.0012', '')
    """
    if value is None or pd.isna(value):
        return ""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
