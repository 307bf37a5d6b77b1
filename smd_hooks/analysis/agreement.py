"""How well measured angles agree with theory, per sample, per weight, per run.

Two scores that mean different things: ``angle_ratio`` (Δ/Δ*) compares with the a-priori
equilibrium, which knows hyperparameters only; ``trajectory_error`` compares with a law
that is fed with measured gradient moments, and so tests whether scale invariance, rule
and measurement are consistent with each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ..theory import (
    NoPrediction,
    UpdateRule,
    driving_moment,
    equilibrium_angle,
    equilibrium_norm,
    relaxation_time,
    second_moment_trajectory,
)

WINDOW = 25
"""Samples in a window, at least: theory fixes means of squares, single steps scatter."""
WINDOW_TIMES = 0.2
"""Length of a window in relaxation times, where that is longer."""
WINDOW_SHARE = 0.1
"""Share of a stage that a window covers at most."""
STEPS_AFTER_A_CHANGE = 5
"""Not scored: the momentum buffer still holds the old learning rate's steps."""
STAGE_CHANGE = 1.2
"""Ratio of successive learning rates beyond which a new stage begins."""
BAND = 0.05
"""Half width of "in equilibrium", relative."""
WIDE_BAND = 0.15
"""Half width that the middle nine tenths of the layers must keep to, relative."""
RELAXED = 4.4
"""Relaxation times after which a ÷10 drop should be within 5 % of equilibrium."""


def predict(samples: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Put the predictions beside every sample of a scale-invariant weight.

    Args:
        samples: Rows as in :data:`smd_hooks.records.schema.SAMPLES`.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        The samples of scale-invariant weights with a known update rule, sorted by
        weight and step, and per row: ``parameter``, ``stage`` (0, 1, … between jumps of
        the learning rate), ``equilibrium_angle`` (Δ*, radians; NaN without decay),
        ``elapsed`` (relaxation times since the first sample), ``angle_ratio`` (RMS of
        Δ/Δ* over a window around the sample, within the stage: a fifth of a relaxation
        time, at most a tenth of the stage, at least 25 samples), ``trajectory_angle``
        and ``measured_angle`` (RMS over the same window, radians), ``trajectory_error``
        (|log| of measured over trajectory, RMS over 25 samples; NaN in the first steps
        of a stage) and ``driving_moment`` (mean of h̃ over 25 samples).
    """
    prepared = []
    for index, weight in _predictable(weights):
        frame = samples[samples["weight"] == index].sort_values("step", ignore_index=True)
        if len(frame):
            rule = UpdateRule.from_config(weight["rule"])
            prepared.append((rule, _prepare(frame, rule).assign(parameter=weight["parameter"])))
    _follow_the_law(prepared)
    frames = [_smooth(frame) for _, frame in prepared]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _predictable(weights: pd.DataFrame) -> list[tuple[int, Mapping[str, Any]]]:
    rows = weights.to_dict("records")
    return [
        (i, row)
        for i, row in enumerate(rows)
        if row.get("scale_invariant") is True and isinstance(row.get("rule"), dict)
    ]


def _prepare(frame: pd.DataFrame, rule: UpdateRule) -> pd.DataFrame:
    frame["stage"] = stages(frame["lr"].to_numpy())
    settings = list(zip(frame["lr"].tolist(), frame["weight_decay"].tolist(), strict=True))
    targets = {pair: _angle_and_rate(rule.at(*pair)) for pair in set(settings)}
    frame["equilibrium_angle"] = [targets[pair][0] for pair in settings]
    # relaxation times since the first sample
    rate = pd.Series([targets[pair][1] for pair in settings])
    frame["elapsed"] = (rate.shift(fill_value=0.0) * frame["step"].diff().fillna(0)).cumsum()
    r2 = frame["weight_norm"].astype(float) ** 2
    frame["gradient_moment"] = _window_mean(frame["gradient_norm"].astype(float) ** 2 * r2)
    alignment = frame["gradient_momentum_dot"].astype(float) * r2
    frame["alignment_moment"] = _window_mean(alignment)
    frame["driving_moment"] = driving_moment(
        rule, frame["gradient_moment"], frame["alignment_moment"]
    )
    return frame


def stages(lr: np.ndarray) -> np.ndarray:
    """Number the stages between jumps of the learning rate, one number per sample.

    A jump stands alone: a smooth schedule also changes by large ratios, near 0, but
    then so do its neighbours.
    """
    change = np.abs(np.diff(np.log(np.maximum(lr, 1e-300)), prepend=np.log(max(lr[0], 1e-300))))
    before, after = np.r_[0.0, change[:-1]], np.r_[change[1:], 0.0]
    alone = change > 3 * np.maximum(before, after)
    return ((change > np.log(STAGE_CHANGE)) & alone).cumsum()


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
        constants = (rule.momentum, rule.dampening, rule.nesterov)
        together.setdefault((constants, frame["step"].to_numpy().tobytes()), []).append(
            (rule, frame)
        )
    for members in together.values():
        rule, first = members[0]
        column = partial(_stack, [frame for _, frame in members])
        with np.errstate(all="ignore"):  # a run that diverged ends in NaN, as its law does
            law = second_moment_trajectory(
                rule,
                first["step"].to_numpy(),
                column("lr"),
                column("weight_decay"),
                column("gradient_moment"),
                column("alignment_moment"),
                column("weight_norm")[0],
                column("rescale"),
                from_first_step=bool(first["step"].iloc[0] == 0),
            )
        for (_, frame), angle in zip(members, law.angular_update.T, strict=True):
            frame["law"] = angle


def _stack(frames: list[pd.DataFrame], column: str) -> np.ndarray:
    """Samples × layers."""
    return np.stack([frame[column].to_numpy(float) for frame in frames], axis=1)


def _smooth(frame: pd.DataFrame) -> pd.DataFrame:
    """Root mean squares within each stage, around each sample."""
    smoothed = [_smooth_stage(stage) for _, stage in frame.groupby("stage")]
    return frame.drop(columns=["law", "gradient_moment", "alignment_moment"]).join(
        pd.concat(smoothed)
    )


def _smooth_stage(stage: pd.DataFrame) -> pd.DataFrame:
    angle = stage["angular_update"].astype(float)
    columns = {
        "measured_angle": angle,
        "angle_ratio": angle / stage["equilibrium_angle"],
        "trajectory_angle": stage["law"],
    }
    squares = pd.DataFrame(columns) ** 2
    window = _window(stage)
    smooth = np.sqrt(squares.rolling(window, min_periods=1, center=True).mean())
    scored = stage["step"] - stage["step"].iloc[0] >= STEPS_AFTER_A_CHANGE
    short = squares[scored].rolling(WINDOW, min_periods=1, center=True).mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.abs(np.log(short["measured_angle"] / short["trajectory_angle"])) / 2
    return smooth.assign(trajectory_error=error.where(np.isfinite(error)))


def _window(stage: pd.DataFrame) -> int:
    """A fifth of a relaxation time, at most a tenth of the stage, at least 25 samples."""
    passed = stage["elapsed"].iloc[-1] - stage["elapsed"].iloc[0]
    share = min(WINDOW_SHARE, WINDOW_TIMES / passed) if passed > 0 else WINDOW_SHARE
    return max(WINDOW, round(share * len(stage)))


def _window_mean(values: pd.Series) -> pd.Series:
    return values.rolling(WINDOW, min_periods=1, center=True).mean()


def score(predicted: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Score each weight at the end of its run.

    The last window has the length of those of :func:`predict`, and never reaches back
    beyond the last jump of the learning rate.

    Args:
        predicted: What :func:`predict` returned.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        One row per parameter: ``angle_ratio`` (RMS of Δ/Δ* in the last window),
        ``trajectory_error`` (median over the run), ``norm_ratio`` (mean r/r* in the
        last window), ``elapsed`` (relaxation times since the last jump) and ``samples``
        (in the last window).
    """
    rows = []
    for index, weight in _predictable(weights) if len(predicted) else []:
        frame = predicted[predicted["weight"] == index]
        if not len(frame):
            continue
        last = frame[frame["stage"] == frame["stage"].iloc[-1]]
        rows.append(
            {
                "parameter": weight["parameter"],
                "trajectory_error": frame["trajectory_error"].median(),
                **_score_end(last, UpdateRule.from_config(weight["rule"])),
            }
        )
    columns = ["parameter", "angle_ratio", "trajectory_error", "norm_ratio", "elapsed", "samples"]
    return pd.DataFrame(rows, columns=columns)


def _score_end(stage: pd.DataFrame, rule: UpdateRule) -> dict[str, float]:
    window = stage.iloc[-_window(stage) :]
    ratio = window["angular_update"].astype(float) / window["equilibrium_angle"]
    result = {
        "angle_ratio": float(np.sqrt((ratio**2).mean())),
        "elapsed": float(stage["elapsed"].iloc[-1] - stage["elapsed"].iloc[0]),
        "samples": len(window),
    }
    end = rule.at(float(window["lr"].iloc[-1]), float(window["weight_decay"].iloc[-1]))
    try:
        radius = equilibrium_norm(end, float(window["driving_moment"].mean()))
    except NoPrediction:
        return result
    return {**result, "norm_ratio": float(window["weight_norm"].mean() / radius)}


def summarize(scores: pd.DataFrame, weights: pd.DataFrame, measured: bool) -> dict[str, Any]:
    """Put a run's scores into the table's agreement columns.

    Args:
        scores: What :func:`score` returned; empty where nothing could be predicted.
        weights: One row per weight, as ``run.json`` has them.
        measured: Whether the run has records at all.

    Returns:
        ``si_params``, ``angle_ratio`` with its percentiles, ``in_equilibrium`` (share of
        weights within 5 % of Δ*), ``trajectory_error``, ``norm_ratio``, ``verdict``.
    """
    result: dict[str, Any] = {"verdict": _verdict(scores, weights, measured)}
    if measured and "scale_invariant" in weights:
        matrices = weights[[len(shape) >= 2 for shape in weights["shape"]]]
        invariant = sum(v is True for v in matrices["scale_invariant"])
        result["si_params"] = f"{invariant}/{len(matrices)}"
    ratios = scores["angle_ratio"].dropna() if len(scores) else pd.Series(dtype=float)
    if len(ratios):
        result |= {
            "angle_ratio": ratios.median(),
            "angle_ratio_p05": ratios.quantile(0.05),
            "angle_ratio_p95": ratios.quantile(0.95),
            "in_equilibrium": float(((ratios - 1).abs() <= BAND).mean()),
        }
    if len(scores):
        result["trajectory_error"] = scores["trajectory_error"].median()
        result["norm_ratio"] = scores["norm_ratio"].median()
    return result


def _verdict(scores: pd.DataFrame, weights: pd.DataFrame, measured: bool) -> str:
    if not measured:
        return "not measured"
    if "scale_invariant" not in weights:
        return "too short: no verdict on scale invariance yet"
    invariant = weights[[v is True for v in weights["scale_invariant"]]]
    if not len(invariant):
        matrices = weights[[len(shape) >= 2 for shape in weights["shape"]]]
        return f"nothing is scale-invariant: {matrices['reason'].mode().iloc[0]}"
    reasons = [r for r in invariant["no_prediction"] if r]
    if reasons:
        return reasons[0]
    ratios = scores["angle_ratio"].dropna() if len(scores) else pd.Series(dtype=float)
    if not len(ratios):
        return "not applicable: no weight decay, so no equilibrium"
    ratio, elapsed = ratios.median(), scores["elapsed"].median()
    if scores["samples"].median() < WINDOW:
        return f"too short: {scores['samples'].median():.0f} samples since the last lr change"
    if abs(ratio - 1) <= BAND:
        low, high = ratios.quantile(0.05), ratios.quantile(0.95)
        if low >= 1 - WIDE_BAND and high <= 1 + WIDE_BAND:
            return "in equilibrium"
        return f"in equilibrium in the median, layers from {low:.2f} to {high:.2f}"
    side = "above" if ratio > 1 else "below"
    if elapsed < RELAXED:
        return f"{side} equilibrium: {elapsed:.1f} relaxation times since the last lr change"
    return f"{side} equilibrium by {abs(ratio - 1):.0%}"
