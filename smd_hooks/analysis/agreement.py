"""How well measured angles agree with theory, per sample and per weight.

Two scores that mean different things: ``angle_ratio`` (Δ/Δ*) compares with the a-priori
equilibrium, which knows hyperparameters only; ``trajectory_error`` compares with a law
that is fed with measured moments, and so tests whether scale invariance, rule and
measurement are consistent with each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ..theory import (
    NoPrediction,
    StepMoments,
    UpdateRule,
    driving_moment,
    equilibrium_angle,
    equilibrium_norm,
    relaxation_time,
    second_moment_trajectory,
)
from .moments import measured_moments
from .windows import WINDOW, invariant_spans, stages, window_length, window_mean

STEPS_AFTER_A_CHANGE = 5
"""Not scored: the momentum buffer still holds the old learning rate's steps."""
WHOLE = -1
"""Number of the unit that is a whole tensor or a joint group; filters are numbered from 0."""
_MOMENTS = {field.name: f"{field.name}_moment" for field in fields(StepMoments)}


def predict(samples: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Put the predictions beside every sample taken while its weight was scale-invariant.

    Args:
        samples: Rows as in :data:`smd_hooks.records.schema.SAMPLES`. Filters are left out:
            predictions are for whole tensors and joint groups.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        The samples of weights with a known update rule, sorted by weight and step, and per
        row: ``parameter``, ``stage`` (0, 1, … between jumps of the learning rate, and a new
        one wherever the weight became scale-invariant again), ``equilibrium_angle`` (Δ*,
        radians; NaN where there is none), ``elapsed`` (relaxation times since the first
        sample), ``angle_ratio`` (RMS of Δ/Δ* over a window around the sample, within the
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
    by_weight = dict(iter(samples.groupby("weight")))
    prepared = []
    for index, weight, rule in _predictable(weights):
        stage = 0
        frame = by_weight.get(index, samples[:0]).sort_values("step")
        for span in invariant_spans(frame, weight.get("changes")):
            span = _prepare(span, rule).assign(parameter=weight["parameter"])
            span["stage"] += stage
            stage = int(span["stage"].iloc[-1]) + 1
            prepared.append((rule, span))
    _follow_the_law(prepared)
    frames = [_smooth(frame) for _, frame in prepared]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


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


def _prepare(frame: pd.DataFrame, rule: UpdateRule) -> pd.DataFrame:
    frame["stage"] = stages(frame["lr"].to_numpy())
    settings = list(zip(frame["lr"].tolist(), frame["weight_decay"].tolist(), strict=True))
    targets = {pair: _angle_and_rate(rule.at(*pair)) for pair in set(settings)}
    frame["equilibrium_angle"] = [targets[pair][0] for pair in settings]
    # relaxation times since the first sample
    rate = pd.Series([targets[pair][1] for pair in settings])
    frame["elapsed"] = (rate.shift(fill_value=0.0) * frame["step"].diff().fillna(0)).cumsum()
    measured = measured_moments(frame)
    means = StepMoments(**{name: window_mean(measured.need(name)) for name in _MOMENTS})
    for name, column in _MOMENTS.items():
        frame[column] = means.need(name)
    try:
        frame["driving_moment"] = driving_moment(rule, means, frame["lr"].to_numpy(float))
    except NoPrediction:
        frame["driving_moment"] = math.nan
    return frame


def _angle_and_rate(rule: UpdateRule) -> tuple[float, float]:
    """Δ* and 1/τ; NaN and 0 where there is no equilibrium."""
    try:
        return equilibrium_angle(rule), 1 / relaxation_time(rule)
    except NoPrediction:
        return math.nan, 0.0


def _follow_the_law(prepared: list[tuple[UpdateRule, pd.DataFrame]]) -> None:
    """Add the law's angle to each frame; weights that were sampled together go together."""
    together: dict[Any, list[tuple[UpdateRule, pd.DataFrame]]] = {}
    for rule, frame in prepared:
        key = (rule.constants, frame["step"].to_numpy().tobytes())
        together.setdefault(key, []).append((rule, frame))
    for members in together.values():
        angles = _law(members[0][0], [frame for _, frame in members])
        for (_, frame), angle in zip(members, angles.T, strict=True):
            frame["law"] = angle


def _law(rule: UpdateRule, frames: list[pd.DataFrame]) -> np.ndarray:
    """The trajectory law's angles, samples × layers; NaN for a rule without a law."""
    column = partial(_stack, frames)
    steps = frames[0]["step"].to_numpy()
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
                from_first_step=bool(steps[0] == 0),
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
    scored = stage["step"] - stage["step"].iloc[0] >= STEPS_AFTER_A_CHANGE
    short = squares[scored].rolling(WINDOW, min_periods=1, center=True).mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.abs(np.log(short["measured_angle"] / short["trajectory_angle"])) / 2
    return smooth.assign(trajectory_error=error.where(np.isfinite(error)))


def score(predicted: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Score each weight that is scale-invariant at the end of its run.

    The last window has the length of those of :func:`predict`, and never reaches back
    beyond the last jump of the learning rate.

    Args:
        predicted: What :func:`predict` returned.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        One row per parameter: ``angle_ratio`` (RMS of Δ/Δ* in the last window),
        ``trajectory_error`` (median over the run), ``norm_ratio`` (mean r/r* in the
        last window), ``elapsed`` (relaxation times since the last jump), ``samples``
        (in the last window) and ``no_equilibrium`` (why Δ* does not exist, or empty).
    """
    rows = []
    for index, weight, rule in _predictable(weights) if len(predicted) else ():
        frame = predicted[predicted["weight"] == index]
        if not len(frame) or weight.get("scale_invariant") is not True:
            continue
        last = frame[frame["stage"] == frame["stage"].iloc[-1]]
        rows.append(
            {
                "parameter": weight["parameter"],
                "trajectory_error": frame["trajectory_error"].median(),
                **_score_end(last, rule),
            }
        )
    columns = ["parameter", "angle_ratio", "trajectory_error", "norm_ratio", "elapsed", "samples"]
    return pd.DataFrame(rows, columns=[*columns, "no_equilibrium"])


def _score_end(stage: pd.DataFrame, rule: UpdateRule) -> dict[str, Any]:
    window = stage.iloc[-window_length(stage) :]
    ratio = window["angular_update"].astype(float) / window["equilibrium_angle"]
    moving = window[window["lr"] > 0]  # a schedule may end at 0
    settings = (moving if len(moving) else window).iloc[-1]
    end = rule.at(float(settings["lr"]), float(settings["weight_decay"]))
    result = {
        "angle_ratio": float(np.sqrt((ratio**2).mean())),
        "elapsed": float(stage["elapsed"].iloc[-1] - stage["elapsed"].iloc[0]),
        "samples": len(window),
        "no_equilibrium": _reason(end),
    }
    try:
        radius = equilibrium_norm(end, float(window["driving_moment"].mean()))
    except NoPrediction:
        return result
    return {**result, "norm_ratio": float(window["weight_norm"].mean() / radius)}


def _reason(rule: UpdateRule) -> str:
    """Why there is no Δ*, or empty."""
    try:
        equilibrium_angle(rule)
    except NoPrediction as reason:
        return str(reason)
    return ""
