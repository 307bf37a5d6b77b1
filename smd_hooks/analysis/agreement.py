"""How well measured angles agree with theory, per sample and per weight.

Two scores that mean different things: ``angle_ratio`` (Δ/Δ*) compares with the a-priori
equilibrium, which knows hyperparameters only; ``trajectory_error`` compares with a law
that is fed with measured moments, and so tests whether scale invariance, rule and
measurement are consistent with each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ..theory import (
    NoPrediction,
    RotationalRule,
    StepMoments,
    UpdateRule,
    driving_moment,
    early_excess,
    equilibrium_angle,
    equilibrium_norm,
    relaxation_time,
    second_moment_trajectory,
    step_exponent,
)
from .moments import measured_moments, unlike_moment
from .own_steps import count_own_steps
from .windows import WINDOW, invariant_spans, stages, window_length, window_mean

STEPS_AFTER_A_CHANGE = 5
"""Not scored: the momentum buffer still holds the old learning rate's steps."""
WHOLE = -1
"""Number of the unit that is a whole tensor or a joint group; filters are numbered from 0."""
SCORES = (
    *("parameter", "angle_ratio", "trajectory_error", "norm_ratio", "elapsed", "samples"),
    *("no_equilibrium", "rotational"),
)
"""Columns of :func:`score`."""
_MOMENTS = {field.name: f"{field.name}_moment" for field in fields(StepMoments)}


def predict(samples: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Put the predictions beside every sample taken while its weight was scale-invariant.

    Args:
        samples: Rows as in :data:`smd_hooks.records.schema.SAMPLES`. Filters are left out:
            predictions are for whole tensors and joint groups.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        The samples of weights with a known update rule, sorted by weight and step, and per
        row: ``parameter``, ``own_step`` (steps that moved this weight before, see
        :func:`smd_hooks.analysis.own_steps.count_own_steps`), ``stage`` (0, 1, … between
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
        samples = samples[samples["unit"].fillna(WHOLE) == WHOLE]
    frames = {i: f.sort_values("step", kind="stable") for i, f in samples.groupby("weight")}
    own_steps, targets, prepared = count_own_steps(frames, weights), Targets(), []
    for index, weight, rule in _predictable(weights):
        if index not in frames:
            continue
        stage, frame = 0, frames[index].assign(own_step=own_steps[index])
        for span in invariant_spans(frame, weight.get("changes")):
            span = _prepare(span, rule, targets).assign(parameter=weight["parameter"])
            span["stage"] += stage
            stage = int(span["stage"].iloc[-1]) + 1
            prepared.append((rule, span))
    _follow_the_law(prepared)
    smoothed = [_smooth(frame) for _, frame in prepared]
    return pd.concat(smoothed, ignore_index=True) if smoothed else pd.DataFrame()


class Targets:
    """Evaluates rules along schedules; what layers share is evaluated once."""

    def __init__(self) -> None:
        self._known: dict[Any, np.ndarray] = {}

    def along(
        self, frame: pd.DataFrame, rule: UpdateRule, target: Callable[[UpdateRule], Any]
    ) -> np.ndarray:
        """Return ``target`` of the rule at each row's lr and weight decay."""
        settings = frame[["lr", "weight_decay"]].to_numpy(float)
        key = (target, rule.constants, settings.tobytes())
        if key not in self._known:
            pairs = list(map(tuple, settings.tolist()))
            values = {pair: target(rule.at(*pair)) for pair in set(pairs)}
            self._known[key] = np.array([values[pair] for pair in pairs])
        return self._known[key]


def _predictable(weights: pd.DataFrame) -> Iterator[tuple[int, Mapping[str, Any], UpdateRule]]:
    """Yield index, entry and rule of what is or was scale-invariant and has a rule."""
    for index, weight in enumerate(weights.to_dict("records")):
        changes = weight.get("changes")
        verdicts = [verdict for _, verdict in changes] if isinstance(changes, list) else []
        ever = any(verdict is True for verdict in [*verdicts, weight.get("scale_invariant")])
        if ever and isinstance(weight.get("rule"), dict):
            try:
                yield index, weight, UpdateRule.from_json(weight["rule"])
            except NoPrediction:  # records of a later version, with a rule not known here
                continue


def _prepare(frame: pd.DataFrame, rule: UpdateRule, targets: Targets) -> pd.DataFrame:
    frame["stage"] = stages(frame["lr"].to_numpy(float), frame["weight_decay"].to_numpy(float))
    angle, rate = targets.along(frame, rule, _angle_and_rate).T
    frame["equilibrium_angle"] = angle * frame.get("angle_factor", 1.0)  # an SNR correction
    # relaxation times since the first sample
    frame["elapsed"] = np.r_[0.0, np.cumsum(rate[:-1] * np.diff(frame["own_step"]))]
    empty = _began_empty(frame)
    frame["early_excess"] = early_excess(rule, frame["own_step"] + 1.0) if empty else 1.0
    measured = replace(measured_moments(frame), unlike=unlike_moment(frame, rule, empty))
    means = StepMoments(**{name: window_mean(measured.need(name)) for name in _MOMENTS})
    for name, column in _MOMENTS.items():
        frame[column] = means.need(name)
    try:
        frame["driving_moment"] = driving_moment(rule, means, frame["lr"].to_numpy(float))
    except NoPrediction:
        frame["driving_moment"] = math.nan
    return frame


def _began_empty(frame: pd.DataFrame) -> bool:
    """Whether the first sample is the weight's first step; its momentum is 0 then, or unknown."""
    first = frame.iloc[0]
    return bool(first["own_step"] == 0) and not abs(first["gradient_momentum_dot"]) > 0


def _angle_and_rate(rule: UpdateRule) -> tuple[float, float]:
    """Δ* and 1/τ; NaN and 0 where there is no equilibrium, 0 where it is there at once."""
    angle, rate = math.nan, 0.0
    with suppress(NoPrediction):
        angle = equilibrium_angle(rule)
        rate = 1 / relaxation_time(rule)
    return angle, rate


def _follow_the_law(prepared: list[tuple[UpdateRule, pd.DataFrame]]) -> None:
    """Add the law's angle to each frame; weights that were sampled together go together."""
    together: dict[Any, list[tuple[UpdateRule, pd.DataFrame]]] = {}
    for rule, frame in prepared:
        key = (rule.constants, _began_empty(frame), frame["own_step"].to_numpy().tobytes())
        together.setdefault(key, []).append((rule, frame))
    for members in together.values():
        angles = _law(members[0][0], [frame for _, frame in members])
        for (_, frame), angle in zip(members, angles.T, strict=True):
            frame["law"] = angle * frame.get("angle_factor", 1.0)


def _law(rule: UpdateRule, frames: list[pd.DataFrame]) -> np.ndarray:
    """The trajectory law's angles, samples × layers; NaN for a rule without a law."""
    column = partial(_stack, frames)
    steps = frames[0]["own_step"].to_numpy()
    try:
        with np.errstate(all="ignore"):  # a run that diverged ends in NaN, as its law does
            return second_moment_trajectory(
                rule,
                steps,
                column("lr"),
                column("weight_decay"),
                StepMoments(**{name: column(stored) for name, stored in _MOMENTS.items()}),
                column("weight_norm")[0],
                column("rescale"),
                from_first_step=_began_empty(frames[0]),
            ).angular_update
    except NoPrediction:
        return np.full((len(steps), len(frames)), math.nan)


def _stack(frames: list[pd.DataFrame], column: str) -> np.ndarray:
    """Samples × layers."""
    return np.stack([frame[column].to_numpy(float) for frame in frames], axis=1)


def _smooth(frame: pd.DataFrame) -> pd.DataFrame:
    """Root mean squares within each stage, around each sample."""
    smoothed = [_smooth_stage(stage) for _, stage in frame.groupby("stage")]
    return frame.drop(columns=["law", *_MOMENTS.values()]).join(pd.concat(smoothed))


def _smooth_stage(stage: pd.DataFrame) -> pd.DataFrame:
    angle = stage["angular_update"].astype(float)
    columns = {
        "measured_angle": angle,
        "angle_ratio": angle / stage["equilibrium_angle"],
        "trajectory_angle": stage["law"],
    }
    squares = pd.DataFrame(columns) ** 2
    window = window_length(stage)
    smooth = np.sqrt(squares.rolling(window, min_periods=1, center=True).mean())
    scored = stage["own_step"] - stage["own_step"].iloc[0] >= STEPS_AFTER_A_CHANGE
    short = squares[scored].rolling(WINDOW, min_periods=1, center=True).mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.abs(np.log(short["measured_angle"] / short["trajectory_angle"])) / 2
    return smooth.assign(trajectory_error=error.where(np.isfinite(error)))


def score(predicted: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Score each weight that is scale-invariant at the end of its run.

    The last window has the length of those of :func:`predict`, and never reaches back
    beyond the last jump of learning rate or weight decay.

    Args:
        predicted: What :func:`predict` returned.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        One row per parameter: ``angle_ratio`` (RMS of Δ/Δ* in the last window),
        ``trajectory_error`` (median over the run), ``norm_ratio`` (mean r/r* in the last
        window, r* at each sample's learning rate and the window's mean driving moment; for
        rotational rules r* is the norm at the first sample), ``elapsed`` (relaxation times
        since the last jump; NaN for rotational rules), ``samples`` (in the last window),
        ``no_equilibrium`` (why Δ* does not exist, or empty) and ``rotational`` (whether the
        optimizer turns the weight by a set angle).
    """
    rows, targets = [], Targets()
    frames = dict(iter(predicted.groupby("weight"))) if len(predicted) else {}
    for index, weight, rule in _predictable(weights):
        if index not in frames or weight.get("scale_invariant") is not True:
            continue
        error = frames[index]["trajectory_error"].median()
        end = _score_end(frames[index], rule, targets)
        rows.append({"parameter": weight["parameter"], "trajectory_error": error, **end})
    return pd.DataFrame(rows, columns=list(SCORES))


def _score_end(frame: pd.DataFrame, rule: UpdateRule, targets: Targets) -> dict[str, Any]:
    stage = frame[frame["stage"] == frame["stage"].iloc[-1]]
    window = stage.iloc[-window_length(stage) :]
    ratio = window["angular_update"].astype(float) / window["equilibrium_angle"]
    moving = window[window["lr"] > 0]  # a schedule may end at 0
    settings = (moving if len(moving) else window).iloc[-1]
    end = rule.at(float(settings["lr"]), float(settings["weight_decay"]))
    kept = isinstance(rule, RotationalRule)
    elapsed = float(stage["elapsed"].iloc[-1] - stage["elapsed"].iloc[0])
    return {
        "angle_ratio": float(np.sqrt((ratio**2).mean())),
        "norm_ratio": _kept_norm(frame, window) if kept else _norm_ratio(window, rule, targets),
        "elapsed": math.nan if kept else elapsed,
        "samples": len(window),
        "no_equilibrium": _reason(end),
        "rotational": kept,
    }


def _kept_norm(frame: pd.DataFrame, window: pd.DataFrame) -> float:
    """Mean r over the first one that was measured; a weight is on no sphere while it is 0."""
    norm = frame["weight_norm"].astype(float)
    return float(window["weight_norm"].mean() / norm.where(norm > 0).bfill().iloc[0])


def _norm_ratio(window: pd.DataFrame, rule: UpdateRule, targets: Targets) -> float:
    """Mean r/r* over the samples that moved the weight; NaN where there is no r*."""
    moment = float(window["driving_moment"].mean())
    if not moment > 0:
        return math.nan
    moving = window[window["lr"] > 0]
    # r* goes with the driving moment as a power: what is left is the same for all layers
    radius = targets.along(moving, rule, _unit_norm) * moment ** (1 / (2 + 2 * step_exponent(rule)))
    return float((moving["weight_norm"] / radius).mean())


def _unit_norm(rule: UpdateRule) -> float:
    try:
        return equilibrium_norm(rule, 1.0)
    except NoPrediction:
        return math.nan


def _reason(rule: UpdateRule) -> str:
    """Why there is no Δ*, or empty."""
    try:
        equilibrium_angle(rule)
    except NoPrediction as reason:
        return str(reason)
    return ""
