"""The scores one weight and one sample window at a time, by pandas: slow, and read at once.

What :mod:`smd_hooks.analysis` calculates on arrays of layers × samples is held equal to this.
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

from smd_hooks.analysis.agreement.blocks import WHOLE
from smd_hooks.analysis.agreement.own_steps import own_steps
from smd_hooks.analysis.agreement.prediction import SCORES
from smd_hooks.analysis.agreement.windows import stages
from smd_hooks.theory import (
    AdamRule,
    NoPrediction,
    RotationalRule,
    StepMoments,
    UpdateRule,
    driving_moment,
    early_excess,
    equilibrium_angle,
    equilibrium_norm,
    preconditioned_radial,
    relaxation_time,
    second_moment_trajectory,
    step_exponent,
    unlike_parts,
)
from smd_hooks.theory.trajectory import walk_step_by_step

WINDOW = 25
"""Samples in a window, at least: theory fixes means of squares, single steps scatter."""
LONG_WINDOW = 100
"""Samples for a mean that is small beside its scatter."""
WINDOW_TIMES = 0.2
"""Length of a window in relaxation times, where that is longer."""
WINDOW_SHARE = 0.1
"""Share of a stage that a window covers at most."""
STAGE_CHANGE = 1.2
"""Ratio of successive learning rates, or weight decays, beyond which a new stage begins."""


STEPS_AFTER_A_CHANGE = 5
"""Not scored: the momentum buffer still holds the old learning rate's steps."""
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
    settings = (
        frames[0]["own_step"].to_numpy(),
        column("lr"),
        column("weight_decay"),
        StepMoments(**{name: column(stored) for name, stored in _MOMENTS.items()}),
        column("weight_norm")[0],
        column("rescale"),
        _began_empty(frames[0]),
    )
    try:
        with np.errstate(all="ignore"):  # a run that diverged ends in NaN, as its law does
            if isinstance(rule, RotationalRule):
                return second_moment_trajectory(rule, *settings).angular_update
            return walk_step_by_step(rule, *settings)[1]
    except NoPrediction:
        return np.full((len(frames[0]), len(frames)), math.nan)


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
    return float(window["weight_norm"].astype(float).mean() / norm.where(norm > 0).bfill().iloc[0])


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


def measured_moments(frame: pd.DataFrame) -> StepMoments:
    """Bring one weight's samples into theory's terms, sample by sample.

    The direction u of w' = (1 − ηλ)·w − η·u is not recorded; its length and its part along
    w follow from those of the update.

    Args:
        frame: Rows as in :data:`smd_hooks.records.schema.SAMPLES`, of one weight. Records
            from before ``radial_update`` was kept give no ``direction`` and no ``radial``.
            ‖u‖² is divided by ``early_excess`` where there is such a column, as
            :func:`smd_hooks.analysis.predict` adds it.

    Returns:
        Moments of shape (samples,), NaN where something was not measured.
    """
    norm, lr = _column(frame, "weight_norm"), _column(frame, "lr")
    shrink = lr * _column(frame, "weight_decay")
    along = _column(frame, "radial_update") * norm
    square = _column(frame, "update_norm") ** 2
    with np.errstate(divide="ignore", invalid="ignore"):  # no step, no direction: NaN
        direction = (square + 2 * shrink * along + (shrink * norm) ** 2) / lr**2
        if "early_excess" in frame:
            direction = direction / _column(frame, "early_excess")
        radial = -(along + shrink * norm**2) / lr
    return StepMoments(
        gradient=(_column(frame, "gradient_norm") * norm) ** 2,
        alignment=_column(frame, "gradient_momentum_dot") * norm**2,
        direction=direction,
        radial=radial,
    )


def unlike_moment(frame: pd.DataFrame, rule: UpdateRule, began_empty: bool) -> np.ndarray:
    """What AdamW's preconditioner leaves along a scale-invariant weight.

    Args:
        frame: As :func:`measured_moments` takes it, with ``own_step``, ``stage`` and
            ``early_excess``.
        rule: The weight's update rule.
        began_empty: Whether the first sample is the weight's first step.

    Returns:
        See :func:`smd_hooks.theory.unlike_parts`, shape (samples,), each the mean over 100
        samples around within the stage; 0 for other rules and where it is not known.
    """
    if not isinstance(rule, AdamRule) or not rule.decoupled:
        return np.zeros(len(frame))
    moments, norm = measured_moments(frame), _column(frame, "weight_norm")
    gradient, direction = _column(frame, "gradient_norm"), moments.need("direction")
    steps, lr = _column(frame, "own_step"), _column(frame, "lr")
    preconditioned = preconditioned_radial(
        rule,
        steps,
        lr,
        _column(frame, "weight_decay"),
        direction,
        moments.need("radial"),
        frame.get("rescale"),
        began_empty,
    )
    radial = _column(frame, "radial_cosine") * norm * gradient
    squares = (window_mean(gradient**2), window_mean(direction))
    left = pd.Series(unlike_parts(rule, preconditioned, radial, *squares))
    stages = left.groupby(frame["stage"].to_numpy())
    return np.nan_to_num(stages.transform(_beyond_chance).to_numpy())


def _beyond_chance(values: pd.Series) -> pd.Series:
    """Mean of 100 samples around each, made smaller by what their scatter can make of 0.

    Where filters are small and samples few, single batches' luck is larger than the mean,
    and a law that is told of it for all the steps between two samples goes astray.
    """
    values = values.where(np.isfinite(values))  # a step with learning rate 0 tells nothing
    window = values.rolling(LONG_WINDOW, min_periods=2, center=True)
    mean, chance = window.mean(), window.var() / window.count()
    return mean * np.maximum(1 - chance / mean**2, 0)


def _column(frame: pd.DataFrame, name: str) -> np.ndarray:
    return frame[name].to_numpy(float) if name in frame else np.full(len(frame), np.nan)


def invariant_spans(frame: pd.DataFrame, changes: Any) -> Iterator[pd.DataFrame]:
    """Yield the stretches of one weight's samples during which it was scale-invariant.

    Args:
        frame: Samples of one weight, sorted by step.
        changes: ``[[step, scale_invariant], …]``, each verdict holding from its step on and
            the first one before it, too. Records without a history have something else
            here: then the one verdict they have holds throughout.
    """
    if not len(frame):
        return
    if not isinstance(changes, list) or not changes:
        yield frame.reset_index(drop=True)
        return
    since, verdicts = zip(*sorted(changes, key=lambda change: change[0]), strict=True)
    at = np.maximum(np.searchsorted(since, frame["step"], side="right") - 1, 0)
    invariant = np.array([verdict is True for verdict in verdicts])
    # what lies between two samples counts, too: a span ends there
    for _, span in frame[invariant[at]].groupby(np.cumsum(~invariant)[at][invariant[at]]):
        yield span.reset_index(drop=True)


def window_length(stage: pd.DataFrame) -> int:
    """A fifth of a relaxation time, at most a tenth of the stage, at least 25 samples."""
    passed = stage["elapsed"].iloc[-1] - stage["elapsed"].iloc[0]
    share = min(WINDOW_SHARE, WINDOW_TIMES / passed) if passed > 0 else WINDOW_SHARE
    return max(WINDOW, round(share * len(stage)))


def window_mean(values: np.ndarray, length: int = WINDOW) -> np.ndarray:
    """Mean over 25 samples around each, or another number; what is NaN does not count."""
    return pd.Series(values).rolling(length, min_periods=1, center=True).mean().to_numpy()


def count_own_steps(
    frames: Mapping[int, pd.DataFrame], weights: pd.DataFrame
) -> dict[int, np.ndarray]:
    """Count the steps that each weight took before each of its samples.

    Its optimizer stepped, but not the weight, where others of the same optimizer have a
    sample and it has none.

    Args:
        frames: Samples by index of the weight, each sorted by step.
        weights: One row per weight, as ``run.json`` has them. Without ``optimizer``, as in
            old records, all belong to one.

    Returns:
        By index, what :func:`own_steps` gives.
    """
    names = dict(enumerate(weights["optimizer"])) if "optimizer" in weights else {}
    sampled: dict[object, np.ndarray] = {}
    for index, frame in frames.items():
        steps = frame["step"].to_numpy()
        known = sampled.setdefault(names.get(index), steps)
        if not np.array_equal(known, steps):
            sampled[names.get(index)] = np.union1d(known, steps)
    return {
        index: own_steps(frame["step"].to_numpy(), sampled[names.get(index)])
        for index, frame in frames.items()
    }
