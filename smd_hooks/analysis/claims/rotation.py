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
from ..agreement.windows import BAND, WINDOW
from ..diagnosis.diagnose import is_unit
from ..diagnosis.turning import NORM_BAND
from ..reading.run import Run
from .control import as_if_invariant
from .stage_ends import END_SHARE

RELAXED = 4.0
"""Relaxation times from the first sample on, after which the initial norm is forgotten."""
OF_THE_PEAK = 0.5
"""Share of the largest learning rate down to which layers are looked at."""
PARTS = 10
"""Parts of a run that a set angle is looked at in; fewer where they had less than a window each."""
FIRST_STEPS = 100
"""Steps that the first of them has at least: inner optimizers take some tens to start."""


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

    Left out are steps without a gradient, and the first one, which takes the mean off the
    weights and turns them by that as well.

    Attributes:
        layers: How many.
        as_set: How many of them kept their norm, and turn by 95 to 105 % of the set angle
            after the start, root mean squares of both.
        start: RMS of Δ over that of the set angle in the first tenth of the run, 100 steps at
            least; median of the layers; NaN without samples there.
        parts: The same in each ninth of what follows; of fewer parts where a ninth has less
            than 25 samples; empty without as many at all.
    """

    layers: int
    as_set: int
    start: float
    parts: tuple[float, ...]


def turning(run: Run) -> Turning:
    """Look at what a rotational optimizer, or hook, turned."""
    predicted, scores = run.predicted, run.scores
    if not len(predicted) or not len(scores):
        return Turning(0, 0, math.nan, ())
    turned = scores[scores["rotational"].astype(bool)].set_index("parameter")
    its = predicted[predicted["parameter"].isin(turned.index)]
    last = its["own_step"].max()
    moved = (its["own_step"] > 0) & (its["gradient_norm"] > 0) & (its["equilibrium_angle"] > 0)
    its = its[moved]
    early = its["own_step"] < max(FIRST_STEPS, last / PARTS)
    start, later = its[early], its[~early]
    ratio = _of_the_set_angle(later, [later["parameter"]])
    kept = (turned["norm_ratio"] - 1).abs() <= NORM_BAND
    right = ((ratio - 1).abs() <= BAND).reindex(turned.index, fill_value=False)
    return Turning(
        len(turned),
        int((kept & right).sum()),
        float(_of_the_set_angle(start, [start["parameter"]]).median()),
        _parts(later) if len(ratio) == len(turned) else (),
    )


def _parts(samples: pd.DataFrame) -> tuple[float, ...]:
    """Δ over the set angle in each part of the layers' samples, and the layers' medians."""
    layers = samples.groupby("parameter")["own_step"]
    sizes = layers.transform("size")
    count = min(PARTS - 1, int(sizes.min()) // WINDOW) if len(sizes) else 0
    if not count:
        return ()
    each = _of_the_set_angle(samples, [layers.cumcount() * count // sizes, samples["parameter"]])
    return tuple(map(float, each.groupby(level=0).median()))


def _of_the_set_angle(samples: pd.DataFrame, by: list[pd.Series]) -> pd.Series:
    """RMS of Δ over that of the set angle: where a schedule ends near 0, rounding turns, too."""
    squares = samples[["angular_update", "equilibrium_angle"]].astype(float) ** 2
    means = squares.groupby(by).mean()
    return (means["angular_update"] / means["equilibrium_angle"]) ** 0.5


def imbalance(run: Run) -> float | None:
    """How many times faster the fastest scale-invariant layer turns than the slowest.

    RMS of Δ over the last fifth of the samples at which the learning rate is at least half its
    largest: of what comes after, much is how a norm lags behind. No update rule needs to be
    known. None for fewer than two layers.
    """
    samples, weights = run.samples, run.weights
    if not len(samples) or "scale_invariant" not in weights:
        return None
    chosen = [_is_invariant_unit(entry) for entry in weights.to_dict("records")]
    kept = samples[np.array(chosen)[samples["weight"]]]
    if "unit" in kept:
        kept = kept[kept["unit"] < 0]
    kept = kept[(kept["lr"] > 0) & (kept["lr"] >= OF_THE_PEAK * kept["lr"].max())]
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
