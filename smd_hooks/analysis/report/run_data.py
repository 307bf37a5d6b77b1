"""What one run's part of the page shows, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ...records.plain_text import one_line
from ..reading.run import Run
from ..reading.scalars import LOSS, METRICS
from .embedding import rounded
from .series import a_priori_ratio, layer_series, stage_marks

MOST_POINTS, LEAST_POINTS = 300, 60
"""Points per curve, at most and at least."""
OTHER_METRICS = 6
"""Metrics shown of a run that logs none of the table's."""
FACTS = (
    *("task", "dataset", "model", "optimizer", "lr", "weight_decay", "batch_size", "iters"),
    *("seed", "si_params"),
)
"""Columns of the table that describe a run rather than judge it."""
ADD_HOOK = (
    "Not measured: its config needs custom_imports = dict(imports=['smd_hooks']) and "
    "dict(type='SMDHook', interval=50) among its custom_hooks."
)
_STAGE_MEDIANS = (
    *("lr", "weight_decay", "equilibrium_angle", "relaxation_steps", "length", "ratio_start"),
    *("ratio_end", "steps_to_equilibrium", "predicted_steps", "time_ratio"),
)
_QUANTITIES = ("angle", "law", "ratio", "norm_ratio")


def describe_run(run: Run, row: Mapping[str, Any], budget: int) -> dict[str, Any]:
    """Collect what a run's part of the page shows.

    Args:
        run: The run.
        row: Its row of the table.
        budget: Points that all layers' curves of one quantity may have together, about.

    Returns:
        JSON-ready: ``name``, ``status``, ``verdict``, ``message`` (in place of the curves;
        empty where there are some), ``facts``, ``history``, ``stages``, ``diagnosis`` and,
        with curves, what :func:`_curves` returns.
    """
    data = {
        **_head(run, row, "" if len(run.predicted) else _why_empty(run, row)),
        "history": _history(run.scalars.history),
        "stages": summarize_stages(run.stages) if len(run.predicted) else [],
        "diagnosis": _diagnosis(run),
    }
    if len(run.predicted):
        layers = run.predicted["weight"].nunique()
        data |= _curves(run, min(MOST_POINTS, max(LEAST_POINTS, budget // layers)))
    return data


def describe_unreadable(run: Run, row: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """Return the same for a run whose records broke its description."""
    message = f"These records cannot be shown: {one_line(repr(error))}."
    return {**_head(run, row, message), "history": [], "stages": [], "diagnosis": []}


def _head(run: Run, row: Mapping[str, Any], message: str) -> dict[str, Any]:
    return {
        "name": one_line(run.name),
        "status": _text(row.get("status")),
        "verdict": _text(row.get("verdict")),
        "message": message,
        "facts": [[name, fact] for name in FACTS if (fact := show(row.get(name)))],
    }


def _why_empty(run: Run, row: Mapping[str, Any]) -> str:
    if run.failure:
        return f"Failed: {one_line(run.failure)}"
    if not run.launched:
        return "Missing: a suite planned this run, and nothing of it is on disk."
    if run.problem:
        return f"Its records cannot be read: {one_line(run.problem)}"
    if not run.measured:
        return ADD_HOOK
    verdict = _text(row.get("verdict"))
    return f"{verdict[:1].upper()}{verdict[1:]}."


def _curves(run: Run, points: int) -> dict[str, Any]:
    """Names of the layers, the grid of steps, and each quantity as one list per layer."""
    series = layer_series(run.predicted, run.weights, points)
    steps, ratio = a_priori_ratio(run)
    kept = np.isin(steps, series.steps)
    return {
        "layers": [one_line(name) for name in series.names],
        "steps": series.steps.tolist(),
        "marks": stage_marks(run.predicted),
        "a_priori": {"steps": steps[kept].tolist(), "ratio": rounded(ratio[kept])},
        "targets": _shared(series.target),
        **{name: [rounded(row) for row in getattr(series, name)] for name in _QUANTITIES},
    }


def _shared(rows: np.ndarray) -> dict[str, list[Any]]:
    """Δ* is the same for most layers: each course once, and which course each layer has."""
    courses: list[list[float | None]] = []
    which = []
    for row in map(rounded, rows):
        if row not in courses:
            courses.append(row)
        which.append(courses.index(row))
    return {"courses": courses, "which": which}


def median_ratio(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return ``steps`` and the ``median`` of Δ/Δ* over layers, from a described run."""
    if data["message"]:
        return None
    ratios = pd.DataFrame(data["ratio"], dtype=float)
    return {"steps": data["steps"], "median": rounded(ratios.median())}


def summarize_stages(stages: pd.DataFrame) -> list[dict[str, Any]]:
    """Sum each learning-rate stage up over its layers.

    Args:
        stages: What :func:`smd_hooks.analysis.agreement.stages.stage_table` returned.

    Returns:
        One entry per stage: medians over layers under the table's own names, ``first_step``
        and ``last_step``, ``in_equilibrium`` (share of layers at the stage's end),
        ``reached`` (layers that measurably reached equilibrium) and ``layers``.
    """
    rows = []
    for stage, frame in stages.groupby("stage"):
        with np.errstate(all="ignore"):
            numbers = frame[list(_STAGE_MEDIANS)].astype(float)
            reached = numbers["steps_to_equilibrium"].notna()
            if reached.any():  # measured and predicted steps of the same layers
                numbers.loc[~reached, "predicted_steps"] = math.nan
            medians = rounded(numbers.median())
        rows.append(
            {
                "stage": int(stage) + 1,
                "first_step": int(frame["first_step"].min()),
                "last_step": int(frame["last_step"].max()),
                **dict(zip(_STAGE_MEDIANS, medians, strict=True)),
                "in_equilibrium": round(float(frame["in_equilibrium"].astype(float).mean()), 4),
                "reached": int(frame["steps_to_equilibrium"].notna().sum()),
                "layers": len(frame),
            }
        )
    return rows


def _diagnosis(run: Run) -> list[list[Any]]:
    """One row per matrix: layer, Δ/Δ*, trajectory error, r/r*, cause, its number, in words."""
    scores = {score["parameter"]: score for score in run.scores.to_dict("records")}
    rows = []
    for entry in run.diagnosis.to_dict("records"):
        score = scores.get(entry["parameter"], {})
        keys = ("angle_ratio", "trajectory_error", "norm_ratio")
        numbers = rounded([score.get(key, math.nan) for key in keys] + [entry["value"]])
        layer = one_line(str(entry["parameter"]).removesuffix(".weight"))
        rows.append([layer, *numbers[:3], entry["cause"], numbers[3], one_line(entry["detail"])])
    return rows


def _history(history: pd.DataFrame) -> list[dict[str, Any]]:
    """Training loss and validation metrics over iterations, one entry per metric.

    The table's metrics where there are any: mmdet alone logs a dozen others beside mAP.
    """
    logged = list(history["metric"].unique())
    known = [name for name in METRICS if name in logged]
    others = [name for name in logged if name not in (LOSS, *METRICS)]
    entries = []
    for metric in [LOSS, *(known or others[:OTHER_METRICS])]:
        frame = history[history["metric"] == metric]
        if len(frame):
            iterations = frame["iteration"].astype(int).tolist()
            values = rounded(frame["value"])
            entries.append({"metric": metric, "iterations": iterations, "values": values})
    return entries


def _text(value: Any) -> str:
    return one_line(value) if isinstance(value, str) else ""


def show(value: Any) -> str:
    """Write a value in four significant digits, whole numbers whole; empty where unknown.

    >>> show(0.123456), show(90000.0), show(None)
    ('0.1235', '90000', '')
    """
    if isinstance(value, str):
        return one_line(value)
    if value is None or pd.isna(value):
        return ""
    whole = math.isfinite(value) and float(value).is_integer()
    return f"{value:.0f}" if whole else f"{value:.4g}"
