"""How fast the layers of a run turn: beside what is implied, beside what is set, and each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...theory import RotationalRule, relaxation_ratio
from ..agreement.blocks import predictable
from ..agreement.columns import of_each_weight
from ..agreement.prediction import predict
from ..diagnosis.causes import TURNED_AS_SET
from ..diagnosis.diagnose import is_unit
from ..reading.run import Run
from .control import as_if_invariant
from .stage_ends import END_SHARE

RELAXED = 4.0
"""Relaxation times from the first sample on, after which the initial norm is forgotten."""
OF_THE_PEAK = 0.5
"""Share of the largest learning rate down to which layers are looked at."""
FIRST_STEPS = 25
"""Steps that are "from the first step on": single ones of inner optimizers scatter."""


@dataclass(frozen=True)
class Rotation:
    """How fast the layers of a run turn that have an implied angle.

    Attributes:
        peak_angle: Δ* at the largest learning rate, radians, median of the layers.
        ratio: RMS of Δ/Δ* from 4 τ on, as long as the learning rate is at least half its
            largest; median of the layers.
        expected: What the relaxation law says along the schedule, over the same samples.
        spread: 95th percentile of the layers' ratios over the 5th.
        layers: How many.
    """

    peak_angle: float
    ratio: float
    expected: float
    spread: float
    layers: int


def rotation(run: Run) -> Rotation | None:
    """Look at a run's scale-invariant layers; None if none was ever relaxed."""
    return _rotation(run.predicted, run.weights)


def rotation_of_matrices(run: Run) -> Rotation | None:
    """Look at all matrices that decay, scale-invariant or not.

    In a transformer few weights are; that the others turn much the same is a claim of its own.
    """
    weights = run.weights
    if not len(run.samples) or "scale_invariant" not in weights:
        return None
    chosen = [is_unit(entry) for entry in weights.to_dict("records")]
    pretended = as_if_invariant(weights, chosen)
    return _rotation(predict(run.samples, pretended), pretended)


def _rotation(predicted: pd.DataFrame, weights: pd.DataFrame) -> Rotation | None:
    samples, rows = of_each_weight(predicted), []
    for index, _, rule in predictable(weights):
        if index not in samples or isinstance(rule, RotationalRule):
            continue
        moving = samples[index]
        moving = moving.at((moving["lr"] > 0) & (moving["weight_decay"] > 0))
        if not len(moving["lr"]):
            continue
        lr, decay = moving["lr"], moving["weight_decay"]
        expected = relaxation_ratio(rule, moving["own_step"], lr, decay, moving["rescale"])
        relaxed = moving["elapsed"] - moving["elapsed"][0] >= RELAXED
        chosen = relaxed & (lr >= OF_THE_PEAK * lr.max())
        if chosen.any():
            ratio = moving["angular_update"] / moving["equilibrium_angle"]
            angle = moving["equilibrium_angle"][np.argmax(lr)]
            rows.append((angle, _rms(ratio[chosen]), _rms(expected[chosen])))
    if not rows:
        return None
    angles, ratios, expectations = np.array(rows).T
    low, high = np.percentile(ratios, [5, 95])
    return Rotation(
        float(np.median(angles)),
        float(np.median(ratios)),
        float(np.median(expectations)),
        float(high / low) if low > 0 else math.inf,
        len(rows),
    )


@dataclass(frozen=True)
class Turning:
    """How the layers turn whose optimizer sets their angle.

    Attributes:
        layers: How many.
        as_set: How many of them are diagnosed as turned as set.
        first: Δ over the set angle in the first 25 steps, RMS, median of the layers; NaN
            without samples there.
        angle: The largest angle that was set, radians, median of the layers.
    """

    layers: int
    as_set: int
    first: float
    angle: float


def turning(run: Run) -> Turning:
    """Look at what a rotational optimizer, or hook, turned."""
    predicted, scores = run.predicted, run.scores
    if not len(predicted) or not len(scores):
        return Turning(0, 0, math.nan, math.nan)
    turned = set(scores.loc[scores["rotational"].astype(bool), "parameter"])
    causes = run.diagnosis.set_index("parameter")["cause"].to_dict()
    its = predicted[predicted["parameter"].isin(turned)]
    early = its[its["own_step"] < FIRST_STEPS]
    square = (early["angular_update"] / early["equilibrium_angle"]) ** 2
    first = square.groupby(early["parameter"]).mean() ** 0.5
    largest = its.groupby("parameter")["equilibrium_angle"].max()
    return Turning(
        len(turned),
        sum(causes.get(name) == TURNED_AS_SET for name in turned),
        float(first.median()),
        float(largest.median()),
    )


def imbalance(run: Run) -> float | None:
    """How many times faster the fastest scale-invariant layer turns than the slowest, at the end.

    RMS of Δ over the last fifth of the samples at which the learning rate is not 0; no update
    rule needs to be known. None for fewer than two layers.
    """
    samples, weights = run.samples, run.weights
    if not len(samples) or "scale_invariant" not in weights:
        return None
    chosen = [_is_invariant_unit(entry) for entry in weights.to_dict("records")]
    kept = samples[np.array(chosen)[samples["weight"]]]
    if "unit" in kept:
        kept = kept[kept["unit"] < 0]
    kept = kept[kept["lr"] > 0]
    steps = np.unique(kept["step"])
    if not len(steps):
        return None
    last = kept[kept["step"] >= steps[-max(1, round(END_SHARE * len(steps)))]]
    angles = (last["angular_update"] ** 2).groupby(last["weight"]).mean() ** 0.5
    return float(angles.max() / angles.min()) if len(angles) > 1 else None


def _is_invariant_unit(entry: dict[str, Any]) -> bool:
    return entry.get("scale_invariant") is True and is_unit(entry)


def _rms(values: np.ndarray) -> float:
    return math.sqrt(float(np.mean(values**2)))
