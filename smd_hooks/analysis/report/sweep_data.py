"""What a sweep's part of the page shows, as plain data and in words."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...records.plain_text import one_line
from ..reading.run import Run
from .early_sizes import MEASURES, SHARE, EarlySizes, early_sizes
from .embedding import rounded
from .sweeps import Setting, Sweep, by_value

UNITS = {"accuracy/top1": "%", "accuracy/top5": "%"}
"""Of metrics that have one; mAP is a fraction, losses are the network's own."""
ROOM = 1.25
"""Factor by which limits of logarithmic axes lie beyond what they show."""


@dataclass(frozen=True)
class Start:
    """The beginning of one run of a sweep.

    Attributes:
        setting: Where in the grid it is.
        above: Whether that is above the option's smallest value, not at it.
        name: The run's.
        sizes: Its size measures; None where they cannot be read.
    """

    setting: Setting
    above: bool
    name: str
    sizes: EarlySizes | None


def starts_of(sweep: Sweep, role: str) -> list[Start]:
    """Return the beginning of a role's best runs, at the option's smallest value and above it.

    Of the seeds of a setting it is the first. Records that cannot be read cost a warning.
    """
    starts = []
    for above, setting in enumerate(sweep.best_pair(role)):
        if setting is not None:
            run = setting.runs[0]
            starts.append(Start(setting, bool(above), one_line(run.name), _sizes(run)))
    return starts


def _sizes(run: Run) -> EarlySizes | None:
    try:
        with run.briefly():
            return early_sizes(run)
    except Exception as error:  # other people's files: no run may cost the others their place
        warnings.warn(f"{run.folder}: no size measures ({error!r})", stacklevel=3)
        return None


def axis_title(sweep: Sweep) -> str:
    """Return what is plotted over learning rates, with its unit."""
    unit = UNITS.get(sweep.metric)
    return f"{sweep.metric} [{unit}]" if unit else sweep.metric


def where(sweep: Sweep, setting: Setting) -> str:
    """Return a setting in words, such as ``warmup 0.05, lr 0.001``."""
    return f"{one_line(sweep.option)} {setting.value:g}, lr {setting.lr:.3g}"


def in_words(sweep: Sweep, role: str) -> list[str]:
    """Say what a role's best settings are, at the option's smallest value and above it."""
    names = f"{sweep.values[0]:g}", f"above {sweep.values[0]:g}"
    told = []
    for name, setting in zip(names, sweep.best_pair(role), strict=True):
        if setting is None:
            told.append(f"{one_line(sweep.option)} {name}: none ended with a number")
        else:
            told.append(f"{where(sweep, setting)}: {setting.mean:#.4g}")
    return told


def size_limits(starts: Iterable[Start]) -> dict[str, tuple[float, float]]:
    """Return limits of each measure that hold all bands; none of what was not measured."""
    courses = [s.sizes.courses for s in starts if s.sizes is not None]
    limits = {}
    for name in MEASURES:
        bands = [c[name] for c in courses if name in c]
        if bands:
            low = min(float(band.low.min()) for band in bands)
            high = max(float(band.high.max()) for band in bands)
            limits[name] = (low / ROOM, high * ROOM)
    return limits


def describe_sweep(sweep: Sweep) -> dict[str, Any]:
    """Collect what a sweep's part of the page shows.

    Returns:
        JSON-ready: ``experiment``, ``scale``, ``title`` (of the metric's axis), ``option``,
        ``values`` (of the option), ``lowest_is_best``, ``left_out`` (runs), ``range`` (of the
        metric's axis),
        ``share`` (of the training whose start is shown), ``measures`` (of sizes: column, name
        and limits, None where no run has any) and ``roles``: ``name``, ``words``, ``lines``
        (one per value of the option) and ``starts``.
    """
    starts = {role: starts_of(sweep, role) for role in sweep.roles}
    limits = size_limits(start for several in starts.values() for start in several)
    return {
        "experiment": one_line(sweep.experiment),
        "scale": one_line(sweep.scale, 400),
        "title": axis_title(sweep),
        "option": one_line(sweep.option),
        "values": sweep.values,
        "lowest_is_best": sweep.lowest_is_best,
        "left_out": sweep.left_out,
        "range": list(sweep.limits),
        "share": SHARE,
        "measures": [[name, title, limits.get(name)] for name, title in MEASURES.items()],
        "roles": [
            {
                "name": one_line(role),
                "words": in_words(sweep, role),
                "lines": _lines(sweep, role),
                "best": [[s.value, s.lr] for s in sweep.best_pair(role) if s is not None],
                "starts": [_start(sweep, start) for start in starts[role]],
            }
            for role in sweep.roles
        ],
    }


def _lines(sweep: Sweep, role: str) -> list[dict[str, Any]]:
    """A line over learning rates per value of the option; a mean is None where a run is lost.

    ``edge`` is where a setting stands at the edge of the axis, None for those in range.
    """
    places = sweep.edge_places(role)
    lines = []
    for value, settings in by_value(sweep.roles[role]).items():
        finals = [s.finals or (math.nan,) for s in settings]
        lines.append(
            {
                "value": value,
                "lr": [s.lr for s in settings],
                "mean": precise([s.mean for s in settings]),
                "low": precise(map(min, finals)),
                "high": precise(map(max, finals)),
                "ended": [len(s.finals) for s in settings],
                "lost": [s.lost for s in settings],
                "edge": [places.get((value, s.lr)) for s in settings],
            }
        )
    return lines


def precise(values: Iterable[float]) -> list[float | None]:
    """Return numbers to six digits: losses of one sweep differ in the fourth."""
    return [float(f"{x:.6g}") if math.isfinite(x) else None for x in values]


def _start(sweep: Sweep, start: Start) -> dict[str, Any]:
    sizes = start.sizes
    data = {"where": where(sweep, start.setting), "above": start.above, "run": start.name}
    if sizes is None:
        return {**data, "message": "not readable", "end": 0, "courses": {}}
    courses = {
        name: {
            "steps": np.asarray(course.steps).tolist(),
            **{part: rounded(getattr(course, part)) for part in ("median", "low", "high")},
        }
        for name, course in sizes.courses.items()
    }
    message = f"{sizes.layers} weight matrices" if courses else "not measured"
    return {**data, "message": message, "end": sizes.end, "courses": courses}
