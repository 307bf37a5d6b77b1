"""Reads MMEngine's ``vis_data/scalars.json``: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ...records.foreign_files import MEBIBYTE, Unreadable, check_regular, count_in, number_in
from ...records.plain_text import one_line

METRICS = (
    "accuracy/top1",
    "accuracy/top5",
    "coco/bbox_mAP",
    "coco/segm_mAP",
    "val/loss",
)
"""What has a column in the table."""

LOSS = "loss"
MOST_POINTS = 500
"""Points that are kept of a series over training."""

_MOST_BYTES = 512 * MEBIBYTE
_LONGEST_LINE = MEBIBYTE
_MOST_SERIES = 200
_NO_METRICS = {"step", "iter", "epoch", "time", "data_time", "memory", "lr", "base_lr"}
_VALIDATION_LOSS = {LOSS, "val_loss"}  # as models' val steps and MMEngine's loop call it


class Series:
    """Values over training, thinned evenly while they come: a log may be of any length.

    Args:
        points: (iteration, value), in order.
    """

    def __init__(self, points: list[tuple[int, float]] | None = None) -> None:
        self._kept: list[tuple[int, float]] = []
        self._stride, self._seen = 1, 0
        self._last: tuple[int, float] | None = None
        for point in points or []:
            self.add(*point)

    def add(self, iteration: int, value: float) -> None:
        """Take the next point."""
        self._last = (iteration, value)
        if self._seen % self._stride == 0:
            self._kept.append(self._last)
            if len(self._kept) >= MOST_POINTS:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    @property
    def points(self) -> list[tuple[int, float]]:
        """What is kept: the first, the last, and every so many between them."""
        if self._last is None or self._kept[-1] == self._last:
            return self._kept
        return [*self._kept, self._last]


@dataclass
class Scalars:
    """What a run, or one launch of it, logged.

    Attributes:
        series: Each metric of the validations over training, and the training loss.
        iteration: Last training iteration that was logged.
        validated_at: Last step (epoch or iteration) that a validation line carries.
        lines: Lines that were read.
        broken_lines: Lines that are no JSON object, or have no step.
    """

    series: dict[str, Series] = field(default_factory=dict)
    iteration: int = 0
    validated_at: int = 0
    lines: int = 0
    broken_lines: int = 0

    @property
    def metrics(self) -> dict[str, float]:
        """Last value of each of :data:`METRICS`; accuracy in percent, mAP as a fraction."""
        found = {name: self.series[name].points for name in METRICS if name in self.series}
        return {name: points[-1][1] for name, points in found.items()}

    @cached_property
    def history(self) -> pd.DataFrame:
        """All series: ``iteration``, ``metric``, ``value``; at most 500 points of each.

        ``iteration`` counts the training iterations done; of a validation after an epoch it
        is the last one that was logged before. The training loss is the metric ``loss``.
        """
        rows = [(i, name, value) for name, s in self.series.items() for i, value in s.points]
        return pd.DataFrame(rows, columns=["iteration", "metric", "value"])

    def logged_until(self, iteration: int) -> int:
        """Return the last training iteration up to this one whose loss was logged; 0 if none."""
        losses = self.series[LOSS].points if LOSS in self.series else []
        return max((i for i, _ in losses if i <= iteration), default=0)

    def continued_by(self, newer: Scalars, start: int) -> Scalars:
        """Return both as one: what lies after ``start``, an iteration, is superseded.

        So is what the newer one has again: a validation whose end no checkpoint had.
        """
        names = {**self.series, **newer.series}
        joined = {}
        for name in names:
            old = self.series[name].points if name in self.series else []
            new = newer.series[name].points if name in newer.series else []
            again = new[0][0] if new else start + 1
            joined[name] = Series([p for p in old if p[0] <= start and p[0] < again] + new)
        return Scalars(
            {name: series for name, series in joined.items() if series.points},
            newer.iteration or self.iteration,
            newer.validated_at or self.validated_at,
        )


def read_scalars(path: Path, before: int = 0) -> Scalars:
    """Read a scalars file; a line that was cut off by a kill is counted, not fatal.

    Args:
        path: The file.
        before: The last training iteration that an earlier launch of the run has logged.

    Raises:
        Unreadable: It is no regular file, too large, or cannot be read.
    """
    check_regular(path, _MOST_BYTES)
    scalars = Scalars()
    try:
        for line in _lines(path):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            if isinstance(entry, dict) and _take(scalars, entry, before):
                scalars.lines += 1
            else:
                scalars.broken_lines += 1
    except OSError as error:
        raise Unreadable(f"not readable ({error.strerror})") from None
    return scalars


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        while line := file.readline(_LONGEST_LINE):
            if line.strip():
                yield line


def _take(scalars: Scalars, entry: dict[str, Any], before: int) -> bool:
    """Take a line; False if it is none of MMEngine's."""
    step = count_in(entry.get("step"))
    if step is None:
        return False
    if "lr" in entry or "iter" in entry:  # a training line
        scalars.iteration = max(scalars.iteration, step)
        _add(scalars, LOSS, step, entry.get(LOSS))
        return True
    scalars.validated_at = max(scalars.validated_at, step)
    done = max(
        step, scalars.iteration or before
    )  # of a validation after an epoch, step is the epoch
    for name, value in entry.items():
        if name not in _NO_METRICS:
            _add(scalars, "val/loss" if name in _VALIDATION_LOSS else name, done, value)
    return True


def _add(scalars: Scalars, name: str, iteration: int, value: Any) -> None:
    number = number_in(value)
    if number is None:
        return
    if name not in scalars.series:
        name = one_line(name, 200)
        if len(scalars.series) >= _MOST_SERIES:
            return
    scalars.series.setdefault(name, Series()).add(iteration, number)
