"""Reads MMEngine's ``vis_data/scalars.json``: one JSON object per line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METRICS = (
    "accuracy/top1",
    "accuracy/top5",
    "coco/bbox_mAP",
    "coco/segm_mAP",
    "val/loss",
)


@dataclass
class Scalars:
    """What one launch logged.

    Attributes:
        metrics: Last value of each of :data:`METRICS`; accuracy in percent, mAP as a
            fraction, as MMEngine logs them.
        iteration: Last training iteration that was logged.
        validated_at: Last step (epoch or iteration) that a validation line carries.
        broken_lines: Lines that are no JSON object.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    iteration: int = 0
    validated_at: int = 0
    broken_lines: int = 0


def read_scalars(path: Path) -> Scalars:
    """Read a scalars file; a line that was cut off by a kill is counted, not fatal.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: It is not text.
    """
    scalars = Scalars()
    for line in path.read_text("utf-8").splitlines():
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            _take(scalars, entry)
        else:
            scalars.broken_lines += 1
    return scalars


def _take(scalars: Scalars, entry: dict[str, Any]) -> None:
    step = entry.get("step")
    if "lr" in entry or "iter" in entry:  # a training line
        scalars.iteration = max(scalars.iteration, int(step or 0))
        return
    scalars.validated_at = max(scalars.validated_at, int(step or 0))
    for name in METRICS:
        if isinstance(entry.get(name), int | float):
            scalars.metrics[name] = float(entry[name])
