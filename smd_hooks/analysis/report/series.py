"""What curves and heat maps show of a run: every layer on one thinned grid of steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...theory import (
    NoPrediction,
    RotationalRule,
    UpdateRule,
    equilibrium_norm,
    relaxation_ratio,
    step_exponent,
)
from ..reading.run import Run

REACH = 2
"""Sampling intervals for which a layer's last sample still stands for it."""


@dataclass(frozen=True)
class LayerSeries:
    """Samples of scale-invariant layers, layers × grid; NaN where a layer has none.

    Attributes:
        steps: The grid: optimizer steps, ascending.
        names: One name per layer, all different.
        weights: Each layer's row in the run's weights.
        angle: Measured Δ, radians per step, root mean square over the windows of
            :func:`smd_hooks.analysis.predict`.
        law: Δ of the trajectory law, likewise.
        target: Δ*, radians per step; for rotational weights the angle that is set.
        ratio: Δ/Δ*, root mean square over the same windows.
        norm_ratio: r/r*, r* at the grid point's learning rate, weight decay and driving
            moment; for rotational weights r over the first norm that was measured.
    """

    steps: np.ndarray
    names: list[str]
    weights: list[int]
    angle: np.ndarray
    law: np.ndarray
    target: np.ndarray
    ratio: np.ndarray
    norm_ratio: np.ndarray


def layer_series(predicted: pd.DataFrame, weights: pd.DataFrame, points: int) -> LayerSeries:
    """Put all layers on one grid of about ``points`` of the steps that were sampled.

    The first and last step and both sides of each jump of the schedule are always kept.

    Args:
        predicted: What :func:`smd_hooks.analysis.predict` returned, at least one row.
        weights: One row per weight, as ``run.json`` has them.
        points: Length of the grid, but for the jumps.
    """
    grid = _grid(predicted, points)
    names = layer_names(weights)
    frames = [(int(i), frame.sort_values("step")) for i, frame in predicted.groupby("weight")]
    rows: dict[str, list[np.ndarray]] = {"norm_ratio": []}
    columns = {
        "angle": "measured_angle",
        "law": "trajectory_angle",
        "target": "equilibrium_angle",
        "ratio": "angle_ratio",
    }
    for index, frame in frames:
        place, there = _places(frame["step"].to_numpy(), grid)
        thinned = frame.iloc[place]
        for name, column in columns.items():
            values = np.where(there, thinned[column].to_numpy(float), math.nan)
            rows.setdefault(name, []).append(values)
        rule = UpdateRule.from_json(weights["rule"].iloc[index])
        norms = _norm_ratio(thinned, frame["weight_norm"], rule)
        rows["norm_ratio"].append(np.where(there, norms, math.nan))
    order = [index for index, _ in frames]
    stacked = {name: np.stack(values) for name, values in rows.items()}
    return LayerSeries(grid, [names[i] for i in order], order, **stacked)


def layer_names(weights: pd.DataFrame) -> list[str]:
    """Name each weight as shortly as it stays unique: by layer, parameter, or optimizer too."""
    entries: list[Mapping[str, Any]] = weights.to_dict("records")
    full = [str(entry["parameter"]) for entry in entries]
    counts = Counter(name.removesuffix(".weight") for name in full)
    names = [
        n.removesuffix(".weight") if counts[n.removesuffix(".weight")] == 1 else n for n in full
    ]
    seen = Counter(names)
    return [
        f"{name} ({entry.get('optimizer') or i})" if seen[name] > 1 else name
        for i, (name, entry) in enumerate(zip(names, entries, strict=True))
    ]


def _grid(predicted: pd.DataFrame, points: int) -> np.ndarray:
    steps = np.unique(predicted["step"].to_numpy())
    if len(steps) <= points:
        return steps
    some = np.linspace(0, len(steps) - 1, points).round().astype(int)
    starts = np.unique(predicted.groupby("stage")["step"].min())[1:]
    jumps = np.searchsorted(steps, starts[: points // 4])  # no schedule floods the grid
    return steps[np.unique(np.concatenate([some, jumps, jumps - 1]))]


def _places(steps: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last sample at or before each grid point, and whether it is near enough."""
    place = np.searchsorted(steps, grid, side="right") - 1
    reach = REACH * np.median(np.diff(steps)) if len(steps) > 1 else 0
    place_or_first = np.maximum(place, 0)
    return place_or_first, (place >= 0) & (grid - steps[place_or_first] <= reach)


def _norm_ratio(thinned: pd.DataFrame, norms: pd.Series, rule: UpdateRule) -> np.ndarray:
    norm = thinned["weight_norm"].to_numpy(float)
    if isinstance(rule, RotationalRule):  # a weight is on no sphere while it is 0
        positive = norms[norms > 0]
        return norm / float(positive.iloc[0]) if len(positive) else np.full(len(norm), math.nan)
    try:
        power = 1 / (2 + 2 * step_exponent(rule))
    except NoPrediction:  # Adam with L2
        return np.full(len(thinned), math.nan)
    moment = thinned["driving_moment"].to_numpy(float)
    # r* goes with the driving moment as a power: what is left is the same for all layers
    radius = _unit_norms(rule, thinned["lr"].to_numpy(), thinned["weight_decay"].to_numpy())
    with np.errstate(invalid="ignore", divide="ignore"):  # a moment may be negative
        radius = radius * np.where(moment > 0, moment, math.nan) ** power
        return norm / radius


def _unit_norms(rule: UpdateRule, lr: np.ndarray, weight_decay: np.ndarray) -> np.ndarray:
    """r* at a driving moment of 1; NaN where there is none."""
    pairs = list(zip(lr.tolist(), weight_decay.tolist(), strict=True))
    known = dict.fromkeys(pairs, math.nan)
    for pair in known:
        with suppress(NoPrediction):
            known[pair] = equilibrium_norm(rule.at(*pair), 1.0)
    return np.array([known[pair] for pair in pairs])


def stage_marks(predicted: pd.DataFrame) -> list[dict[str, Any]]:
    """Where the schedule's stages begin, with the learning rate that most layers have there.

    Returns:
        One entry per stage, in order: ``step``, ``iteration`` and ``lr``, and
        ``weight_decay`` where it differs from the stage before.
    """
    # as one layer of the longest history has them: others may be measured from later on
    own = predicted[predicted["weight"] == predicted["weight"].mode().iloc[0]]
    marks: list[dict[str, Any]] = []
    before = None
    for step in sorted(own.groupby("stage")["step"].min()):
        first = predicted[predicted["step"] == step]
        lr, decay = (float(first[name].mode().iloc[0]) for name in ("lr", "weight_decay"))
        mark = {"step": int(step), "iteration": int(first["iteration"].iloc[0]), "lr": lr}
        if before is not None and decay != before:
            mark["weight_decay"] = decay
        marks.append(mark)
        before = decay
    return marks


def a_priori_ratio(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and predicted Δ/Δ* from the first jump of the schedule on.

    The jump is one of learning rate or weight decay. Before it the prediction would need
    the initial norm; the jump is taken to be left from equilibrium. Where the optimizer
    turns all weights by a set angle, the ratio is 1 from the first step on.
    """
    data = run.predicted
    rules = {i: UpdateRule.from_json(run.weights["rule"][i]) for i in data["weight"].unique()}
    relaxing = [i for i, rule in rules.items() if not isinstance(rule, RotationalRule)]
    if not relaxing:
        steps = data["step"].unique()
        return np.sort(steps), np.ones(len(steps))
    layer = data[data["weight"] == relaxing[0]]
    jumps = np.flatnonzero(layer["stage"].to_numpy() > 0)
    if not len(jumps):
        return np.empty(0), np.empty(0)
    layer = layer.iloc[jumps[0] - 1 :]
    try:
        ratio = relaxation_ratio(
            rules[relaxing[0]],
            layer["own_step"],
            layer["lr"],
            layer["weight_decay"],
            layer["rescale"],
        )
    except NoPrediction:
        return np.empty(0), np.empty(0)
    return layer["step"].to_numpy(), ratio
