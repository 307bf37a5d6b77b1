"""How well measured angles agree with theory, per sample and per weight.

Two scores that mean different things: ``angle_ratio`` (Δ/Δ*) compares with the a-priori
equilibrium, which knows hyperparameters only; ``trajectory_error`` compares with a law
that is fed with measured moments, and so tests whether scale invariance, rule and
measurement are consistent with each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ...theory import (
    AdamRule,
    LionRule,
    NoPrediction,
    SGDRule,
    StepMoments,
    UpdateRule,
    driving_moment,
    early_excess,
    equilibrium_angle,
    relaxation_time,
    second_moment_trajectory,
)
from .blocks import WHOLE, Block, find_spans, put_together
from .moments import measured_moments, unlike_moment
from .schedules import Targets
from .scores import SCORES, score
from .windows import WINDOW, stage_slices, window_length, window_mean

__all__ = ["SCORES", "predict", "score"]

STEPS_AFTER_A_CHANGE = 5
"""Not scored: the momentum buffer still holds the old learning rate's steps."""
DRIVEN_BY: dict[type[UpdateRule], tuple[str, ...]] = {
    SGDRule: ("gradient", "alignment"),
    AdamRule: ("direction", "unlike"),
    LionRule: ("direction", "radial"),
}
"""Moments that a family's law is fed with."""
PREDICTED = (
    *("own_step", "stage", "equilibrium_angle", "elapsed", "early_excess", "driving_moment"),
    *("parameter", "measured_angle", "angle_ratio", "trajectory_angle", "trajectory_error"),
)
"""What :func:`predict` puts beside the samples."""


def predict(samples: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Put the predictions beside every sample taken while its weight was scale-invariant.

    Args:
        samples: Rows as in :data:`smd_hooks.records.schema.SAMPLES`. Filters are left out:
            predictions are for whole tensors and joint groups.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        The samples of weights with a known update rule, sorted by weight and step, and per
        row: ``parameter``, ``own_step`` (steps that moved this weight before, see
        :func:`smd_hooks.analysis.agreement.own_steps.count_own_steps`), ``stage`` (0, 1, … between
        jumps of learning rate or weight decay, and a new one wherever the weight became
        scale-invariant again), ``equilibrium_angle`` (Δ*, radians: for rotational rules the
        angle that is set, corrected where it was; NaN where there is none), ``elapsed``
        (relaxation times since the first sample; 0 where nothing relaxes), ``early_excess``
        (see :func:`smd_hooks.theory.early_excess`; 1 for an optimizer state that did not begin
        empty), ``angle_ratio`` (RMS of Δ/Δ* over a window around the sample, within the
        stage: a fifth of a relaxation time, at most a tenth of the stage, at least 25
        samples), ``trajectory_angle`` and ``measured_angle`` (RMS over the same window,
        radians), ``trajectory_error`` (|log| of measured over trajectory, RMS over 25
        samples; NaN in the first steps of a stage) and ``driving_moment`` (mean over 25
        samples of h̃, see :func:`smd_hooks.theory.driving_moment`).
    """
    if not len(samples):
        return pd.DataFrame()
    if "unit" in samples:
        whole = (samples["unit"].fillna(WHOLE) == WHOLE).to_numpy()
        samples = samples if whole.all() else samples[whole]
    spans = find_spans(samples, weights)
    if not spans:
        return pd.DataFrame()
    lengths = [len(span.rows) for span in spans]
    samples = samples.iloc[np.concatenate([span.rows for span in spans])].reset_index(drop=True)
    columns: dict[str, Any] = {name: np.empty(len(samples)) for name in PREDICTED}
    columns["own_step"] = np.concatenate([span.own_step for span in spans])
    columns["parameter"] = pd.Series([span.parameter for span in spans]).repeat(lengths).array
    columns["stage"] = np.concatenate([span.stage for span in spans])
    targets = Targets()
    for block in put_together(samples, spans):
        for name, values in _predict_block(block, targets).items():
            columns[name][block.rows] = values
    return samples.assign(**columns)


def _predict_block(block: Block, targets: Targets) -> dict[str, np.ndarray]:
    """Predictions of a block, each (layers, samples), or (samples,) where layers share it."""
    columns, rule = block.columns, block.rule
    own_step, lr = columns["own_step"], columns["lr"]
    angle, rate = targets.along(rule, lr, columns["weight_decay"], _angle_and_rate).T
    factor = columns.get("angle_factor", 1.0)  # an SNR correction
    seen = own_step + 1.0
    columns["early_excess"] = early_excess(rule, seen) if block.began_empty else np.ones_like(seen)
    moments = _window_moments(block)
    try:
        driving = driving_moment(rule, moments, lr)
    except NoPrediction:
        driving = np.full(columns["angular_update"].shape, math.nan)
    predicted = {
        "equilibrium_angle": angle * factor,
        # relaxation times since the first sample
        "elapsed": np.r_[0.0, np.cumsum(rate[:-1] * np.diff(own_step))],
        "early_excess": columns["early_excess"],
        "driving_moment": driving,
    }
    law = _law(block, moments) * factor
    return predicted | _smooth(columns, predicted["equilibrium_angle"], law, predicted["elapsed"])


def _window_moments(block: Block) -> StepMoments:
    """Means over windows of what the rule's law needs; nothing else."""
    columns, rule = block.columns, block.rule
    measured = measured_moments(columns)
    if isinstance(rule, AdamRule):
        measured = replace(measured, unlike=unlike_moment(columns, rule, block.began_empty))
    names = DRIVEN_BY.get(type(rule), ())
    return StepMoments(**{name: window_mean(measured.need(name)) for name in names})


def _angle_and_rate(rule: UpdateRule) -> tuple[float, float]:
    """Δ* and 1/τ; NaN and 0 where there is no equilibrium, 0 where it is there at once."""
    angle, rate = math.nan, 0.0
    with suppress(NoPrediction):
        angle = equilibrium_angle(rule)
        rate = 1 / relaxation_time(rule)
    return angle, rate


def _law(block: Block, moments: StepMoments) -> np.ndarray:
    """The trajectory law's angles, layers × samples; NaN for a rule without a law."""
    columns, shape = block.columns, block.columns["angular_update"].shape
    try:
        with np.errstate(all="ignore"):  # a run that diverged ends in NaN, as its law does
            return second_moment_trajectory(
                block.rule,
                columns["own_step"],
                np.broadcast_to(columns["lr"], shape).T,
                np.broadcast_to(columns["weight_decay"], shape).T,
                StepMoments(**{name: v.T for name, v in vars(moments).items() if v is not None}),
                columns["weight_norm"][:, 0],
                columns["rescale"].T,
                from_first_step=block.began_empty,
            ).angular_update.T
    except NoPrediction:
        return np.full(shape, math.nan)


def _smooth(
    columns: Mapping[str, np.ndarray], target: np.ndarray, law: np.ndarray, elapsed: np.ndarray
) -> dict[str, np.ndarray]:
    """Root mean squares within each stage, around each sample."""
    angle, own_step = columns["angular_update"], columns["own_step"]
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.stack([angle, angle / target, law]) ** 2
        smooth, error = np.empty_like(squares), np.full(angle.shape, math.nan)
        for stage in stage_slices(columns["stage"]):
            window = window_length(elapsed[stage])
            smooth[..., stage] = np.sqrt(window_mean(squares[..., stage], window))
            since = own_step[stage] - own_step[stage.start]
            scored = slice(stage.start + int((since < STEPS_AFTER_A_CHANGE).sum()), stage.stop)
            short = window_mean(squares[::2, ..., scored], WINDOW)
            error[:, scored] = np.abs(np.log(short[0] / short[1])) / 2
    names = ("measured_angle", "angle_ratio", "trajectory_angle")
    smoothed = dict(zip(names, smooth, strict=True))
    return smoothed | {"trajectory_error": np.where(np.isfinite(error), error, math.nan)}
