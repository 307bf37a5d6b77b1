"""How a run's angles agree with what theory says at the ends of its schedule's stages.

Three predictions are compared with. The closed form knows hyperparameters only, and takes
the driving moment h̃ for steady. The drift-corrected form is told how h̃ changes, relative
to the end of the first stage, but neither its size nor the norm. The law is fed with all
measured moments, and tests whether scale invariance, update rule and measurement go
together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...theory import UpdateRule, relaxation_ratio
from ..agreement.blocks import predictable
from ..agreement.prediction import predict, score

POINTS = 0.05
"""Largest distance of Δ/Δ* (median of the layers) from a form of it at the end of a stage."""
END_SHARE = 0.2
"""Share of a stage that is its end, or its middle. A batch's luck is common to all layers: over
a shorter window, their median scatters by as much as those 5 points."""
BAND = (0.85, 1.15)
"""What Δ/Δ* must keep to, at the end of every stage, where weights are rescaled: they stay on the
equilibrium of the h̃ of earlier stages, so that every change of h̃ shows."""
LAW_MEDIAN, LAW_WORST = 0.03, 0.06
"""Largest error of the trajectory law, of the median layer in any stage, and of the worst layer
over the run."""

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Agreement:
    """How one run's angles agree with the predictions.

    Attributes:
        measured: Δ/Δ* at the end of each stage, see :func:`stage_ends`.
        closed_form: What hyperparameters alone say it is there.
        drift_corrected: What they say if told how h̃ changed; NaN for stage 1.
        driving_moment: h̃ there, over what it is at the end of stage 2: the closed form
            takes it for steady, and is off by its root where τ outlasts the stage.
        half_way: Δ/Δ* and its closed form in the middle of stage 2; NaN without one.
        law_median: Error of the trajectory law of the median weight, in the stage where that
            is largest (medians over each stage); NaN if it is not known of some stage.
        law_worst: The same of the worst weight, of medians over the run.
    """

    measured: Numbers
    closed_form: Numbers
    drift_corrected: Numbers
    driving_moment: Numbers
    half_way: tuple[float, float]
    law_median: float
    law_worst: float

    def off(self, form: Numbers) -> Numbers:
        """By how much Δ/Δ* exceeds a form of it at the ends of stages 2, 3, …"""
        return tuple(a - b for a, b in zip(self.measured[1:], form[1:], strict=True))

    def within(self, form: Numbers, points: float = POINTS) -> bool:
        """Whether there are later stages than the first and all end so close to a form of it."""
        off = self.off(form)
        return len(off) > 0 and all(abs(value) <= points for value in off)

    def follows(self, form: Numbers, points: float = POINTS) -> bool:
        """Whether it is so close to a form of Δ/Δ* also in proportion, where that is below 1.

        Late stages of plain runs end near .1: there a form that is off by a third would
        still be within 5 points.
        """
        near = (abs(a - b) <= points * b for a, b in zip(self.measured[1:], form[1:], strict=True))
        return self.within(form, points) and all(near)

    @property
    def law_holds(self) -> bool:
        """Whether the law's error keeps to both limits."""
        return self.law_median <= LAW_MEDIAN and self.law_worst <= LAW_WORST

    @property
    def law_breaks(self) -> bool:
        """Whether it goes beyond one; a run without predictions neither holds nor breaks."""
        return self.law_median > LAW_MEDIAN or self.law_worst > LAW_WORST


NOTHING = Agreement((), (), (), (), (math.nan, math.nan), math.nan, math.nan)
"""Of a run without predictions; nothing holds."""


def agreement(samples: pd.DataFrame, weights: pd.DataFrame) -> Agreement:
    """Compare the samples of all weights called scale-invariant with the predictions.

    Args:
        samples: Rows as in :data:`smd_hooks.records.schema.SAMPLES`.
        weights: One row per weight, as ``run.json`` has them; each stage of their schedule is
            a stage here.
    """
    predicted = predict(samples, weights)
    if not len(predicted):
        return NOTHING
    errors = score(predicted, weights)["trajectory_error"]
    ends, middles = stage_ends(predicted, weights)
    second = middles.reindex([1]).iloc[0]
    measured, closed_form, drift_corrected, driving = (tuple(map(float, ends[n])) for n in ENDS)
    return Agreement(
        measured,
        closed_form,
        drift_corrected,
        driving,
        half_way=(float(second["measured"]), float(second["closed_form"])),
        law_median=_law_in_the_worst_stage(predicted),
        law_worst=float(errors.max(skipna=False)),
    )


def _law_in_the_worst_stage(predicted: pd.DataFrame) -> float:
    """A stage that is short beside the run could be wrong unseen in medians over the run."""
    moving = predicted[(predicted["lr"] > 0) & (predicted["weight_decay"] > 0)]
    errors = moving.groupby(["stage", "parameter"])["trajectory_error"].median().unstack("stage")
    return float(errors.median().max(skipna=False))


ENDS = ("measured", "closed_form", "drift_corrected", "driving_moment")
"""Columns of :func:`stage_ends`."""


def stage_ends(predicted: pd.DataFrame, weights: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what stands at the end of each stage and in its middle, the median over weights.

    Columns are those of :class:`Agreement`, Δ/Δ* as RMS over the last fifth of the stage, or
    the middle one; rows are the stages, from 0 on. Samples at a learning rate or decay of 0,
    where schedules begin or end, have no equilibrium and are left out.
    """
    rules = {weight["parameter"]: rule for _, weight, rule in predictable(weights)}
    moving = predicted[(predicted["lr"] > 0) & (predicted["weight_decay"] > 0)]
    frames = []
    for name, frame in moving.groupby("parameter"):
        settings = [frame[c].to_numpy(float) for c in ("step", "lr", "weight_decay", "rescale")]
        stages = frame.groupby("stage")["stage"]
        columns = {
            "measured": (frame["angular_update"] / frame["equilibrium_angle"]) ** 2,
            "closed_form": relaxation_ratio(rules[name], *settings) ** 2,
            "place": (stages.cumcount() + 0.5) / stages.transform("size"),
        }
        columns["drift_corrected"] = _drift_corrected(rules[name], frame, columns["place"]) ** 2
        kept = frame[["stage", "parameter", "driving_moment"]]
        frames.append(kept.assign(**columns))
    if not frames:
        return pd.DataFrame(columns=list(ENDS)), pd.DataFrame(columns=list(ENDS))
    samples = pd.concat(frames, ignore_index=True)
    around = (samples["place"] - 0.5).abs() < END_SHARE / 2
    return _medians(samples[samples["place"] > 1 - END_SHARE]), _medians(samples[around])


def _medians(samples: pd.DataFrame) -> pd.DataFrame:
    """Root mean squares of each weight and stage, h̃ over that of stage 2, and their medians."""
    means = samples.drop(columns="place").groupby(["stage", "parameter"]).mean()
    ratios = ["measured", "closed_form", "drift_corrected"]
    means[ratios] **= 0.5
    second = means["driving_moment"].unstack("stage").reindex(columns=[1])[1]
    means["driving_moment"] /= second.reindex(means.index, level="parameter")
    return means.groupby("stage")[list(ENDS)].median()


def _drift_corrected(
    rule: UpdateRule, frame: pd.DataFrame, place: pd.Series
) -> NDArray[np.float64]:
    """Δ/Δ* from equilibrium at the end of stage 1 on, told of h̃ since; NaN up to there."""
    first = frame["stage"] == frame["stage"].iloc[0]
    start = int(first.sum()) - 1
    steady = frame.loc[first & (place > 1 - END_SHARE), "driving_moment"].mean()
    names = ("step", "lr", "weight_decay", "rescale", "driving_moment")
    steps, lr, decay, rescale, driving = (frame[name].to_numpy(float)[start:] for name in names)
    ratio = relaxation_ratio(rule, steps, lr, decay, rescale, moment=driving / steady)
    return np.concatenate([np.full(start + 1, np.nan), ratio[1:]])
