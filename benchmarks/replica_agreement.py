"""How a run's angles agree with what theory says at the ends of the replica's stages.

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
from numpy.typing import ArrayLike, NDArray

from smd_hooks.theory import UpdateRule, relaxation_ratio, relaxation_time, step_exponent

STAGES = 4
POINTS = 0.05
"""Largest distance of Δ/Δ* (median of the convs) from a form of it at the end of a stage."""
END_SHARE = 0.2
"""Share of a stage that is its end. A batch's luck is common to all layers: over a shorter
window, their median scatters by as much as those 5 points."""
BAND = (0.85, 1.15)
"""What Δ/Δ* must keep to, at the end of every stage, where weights are rescaled: they stay on the
equilibrium of the h̃ of earlier stages, so that every change of h̃ shows."""
LAW_MEDIAN, LAW_WORST = 0.03, 0.06
"""Largest error of the trajectory law, of the median conv and of the worst."""


@dataclass(frozen=True)
class Agreement:
    """How one run's angles agree with the predictions.

    Attributes:
        measured: Δ/Δ* at the end of each stage, see :func:`stage_ends`.
        closed_form: What hyperparameters alone say it is there.
        drift_corrected: What they say if told how h̃ changed; NaN for stage 1.
        driving_moment: h̃ there, over what it is at the end of stage 2: the closed form
            takes it for steady, and is off by its root where τ outlasts the stage.
        law_median: Error of the trajectory law, median weight (medians over the run).
        law_worst: The same of the worst weight.
    """

    measured: tuple[float, ...]
    closed_form: tuple[float, ...]
    drift_corrected: tuple[float, ...]
    driving_moment: tuple[float, ...]
    law_median: float
    law_worst: float

    def off(self, form: tuple[float, ...]) -> tuple[float, ...]:
        """By how much Δ/Δ* exceeds a form of it at the ends of stages 2, 3, …"""
        return tuple(a - b for a, b in zip(self.measured[1:], form[1:], strict=True))

    def within(self, form: tuple[float, ...], points: float = POINTS) -> bool:
        """Whether stages 2 to 4 were reached and end so close to a form of Δ/Δ*."""
        off = self.off(form)
        return len(off) == STAGES - 1 and all(abs(value) <= points for value in off)

    def follows(self, form: tuple[float, ...], points: float = POINTS) -> bool:
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


NOTHING = Agreement((), (), (), (), math.nan, math.nan)
"""Of a run without predictions; nothing holds."""


def agreement(predicted: pd.DataFrame, scores: pd.DataFrame, rule: UpdateRule) -> Agreement:
    """Compare the samples of all scale-invariant weights with the predictions.

    Args:
        predicted: What :func:`smd_hooks.analysis.predict` returned.
        scores: What :func:`smd_hooks.analysis.score` made of it.
        rule: The update rule; its lr and weight decay are taken from the samples.
    """
    if not len(predicted):
        return NOTHING
    ends, errors = stage_ends(predicted, rule), scores["trajectory_error"]
    return Agreement(
        tuple(ends["measured"]),
        tuple(ends["closed_form"]),
        tuple(ends["drift_corrected"]),
        tuple(ends["driving_moment"]),
        float(errors.median(skipna=False)),
        float(errors.max(skipna=False)),
    )


def stage_ends(predicted: pd.DataFrame, rule: UpdateRule) -> pd.DataFrame:
    """Return what stands at the end of each stage, the median over weights.

    Columns are those of :class:`Agreement`, Δ/Δ* as RMS over the last fifth of the stage.
    """
    frames = []
    for _, frame in predicted.groupby("parameter"):
        settings = [frame[c].to_numpy(float) for c in ("step", "lr", "weight_decay", "rescale")]
        squares = {
            "measured": (frame["angular_update"] / frame["equilibrium_angle"]) ** 2,
            "closed_form": relaxation_ratio(rule, *settings) ** 2,
            "drift_corrected": _from_the_end_of_stage_1(rule, frame, settings) ** 2,
        }
        frames.append(frame[["stage", "parameter", "driving_moment"]].assign(**squares))
    samples, by = pd.concat(frames), ["stage", "parameter"]
    ends = samples[_is_end(samples, by)].groupby(by).mean()
    ends[list(squares)] **= 0.5  # mean squares so far
    second = ends["driving_moment"].unstack("stage").reindex(columns=[1])[1]
    ends["driving_moment"] /= second.reindex(ends.index, level="parameter")
    return ends.groupby("stage").median()


def _is_end(samples: pd.DataFrame, by: list[str]) -> pd.Series:
    stages = samples.groupby(by)["stage"]
    return stages.cumcount(ascending=False) < END_SHARE * stages.transform("size")


def _from_the_end_of_stage_1(
    rule: UpdateRule, frame: pd.DataFrame, settings: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """One weight's drift-corrected Δ/Δ* from equilibrium at the end of stage 1; NaN up to there."""
    first = frame["stage"] == 0
    start = int(first.sum()) - 1
    steady = frame.loc[first & _is_end(frame, ["stage"]), "driving_moment"].mean()
    drift = frame["driving_moment"].to_numpy(float) / steady
    from_there = (values[start:] for values in (*settings, drift))
    ratio = drifting_ratio(rule, *from_there)
    return np.concatenate([np.full(start + 1, np.nan), ratio[1:]])


def drifting_ratio(
    rule: UpdateRule,
    steps: ArrayLike,
    lr: ArrayLike,
    weight_decay: ArrayLike,
    rescale: ArrayLike,
    driving_moment: ArrayLike,
) -> NDArray[np.float64]:
    """Δ/Δ* along a schedule on which the driving moment drifts.

    With x = (r/r*)^(2+2p), r* the equilibrium norm for a driving moment h = 1, the norm law
    is dx/dt = (h − x)/τ; jumps of lr, decay and weight act on x as in
    :func:`smd_hooks.theory.relaxation_ratio`. Δ² goes as h/x. For h = 1 that is
    relaxation_ratio; for h = e^(μt) it ends at √(1 + μτ), as
    :func:`smd_hooks.theory.drifting_equilibrium_angle` does.

    Args:
        rule: An update rule of the SGD family, or AdamW; its lr and weight decay are not
            used.
        steps: Sampled optimizer steps, increasing, shape (samples,). The weight is in
            equilibrium with h = 1 at the first.
        lr: η at each sample, positive, shape (samples,).
        weight_decay: λ at each sample, positive, shape (samples,).
        rescale: Cumulative factor put on the weight from outside, shape (samples,).
        driving_moment: h at each sample, held up to the next, shape (samples,).

    Returns:
        Shape (samples,).

    Raises:
        NoPrediction: A learning rate or weight decay is not positive; Adam with L2.

    Source: derived from the norm law of Theorem 2 of Wan et al., *Spherical Motion Dynamics*.
    """
    given = (steps, lr, weight_decay, rescale, driving_moment)
    steps, lr, decay, c, h = (np.asarray(values, float) for values in given)
    x, power, ratio = 1.0, 2 + 2 * step_exponent(rule), np.empty_like(lr)
    for i in range(len(lr)):
        if i:
            tau = relaxation_time(rule.at(float(lr[i - 1]), float(decay[i - 1])))
            x = h[i - 1] + (x - h[i - 1]) * math.exp(-(steps[i] - steps[i - 1]) / tau)
            x *= lr[i - 1] / lr[i] * decay[i] / decay[i - 1] * (c[i] / c[i - 1]) ** power
        ratio[i] = math.sqrt(h[i] / x) if h[i] >= 0 else math.nan
    return ratio
