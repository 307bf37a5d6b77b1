"""Rows of a table as float arrays, one column at a time: what the scores calculate with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd


class Columns(Mapping[str, np.ndarray]):
    """Some rows of a table, by name of the column, each array of the shape of the rows.

    Args:
        table: Whole columns.
        rows: Numbers of the rows, in any shape.
        added: Further columns, or some that were read before.
    """

    def __init__(
        self,
        table: Mapping[str, np.ndarray],
        rows: np.ndarray,
        added: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._table, self._rows, self._added = table, rows, dict(added or {})

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._added:
            self._added[name] = np.asarray(self._table[name][self._rows], float)
        return self._added[name]

    def __setitem__(self, name: str, values: np.ndarray) -> None:
        self._added[name] = values

    def at(self, rows: Any) -> Columns:
        """Return some of these rows, by their numbers or by a mask."""
        added = {name: values[rows] for name, values in self._added.items()}
        return Columns(self._table, self._rows[rows], added)

    def __iter__(self) -> Iterator[str]:
        return iter({**self._table, **self._added})

    def __len__(self) -> int:
        return len({**self._table, **self._added})

    def __contains__(self, name: object) -> bool:
        return name in self._added or name in self._table


def whole_columns(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return a table's columns of numbers as arrays, for any number of :class:`Columns`."""
    numbers = [name for name, dtype in frame.dtypes.items() if dtype.kind in "iuf"]
    return {name: frame[name].to_numpy() for name in numbers}


def of_each_weight(predicted: pd.DataFrame) -> dict[int, Columns]:
    """Return each weight's rows of what :func:`smd_hooks.analysis.predict` returned, by index."""
    if not len(predicted):
        return {}
    table, weight = whole_columns(predicted), predicted["weight"].to_numpy()
    order = np.argsort(weight, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(weight[order])) + 1)
    return {int(weight[of[0]]): Columns(table, of) for of in rows}


def mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN if all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def middle(values: np.ndarray) -> float:
    """Median of what is not NaN; NaN if all is."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else math.nan
