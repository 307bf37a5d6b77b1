"""Why a layer does not turn as fast as its equilibrium says, one main cause each.

A layer off the trajectory law is off for a reason that lies outside the law: rounding,
neighbours that decay, an assumption that does not hold. A layer that follows the law but
not the equilibrium is on its way: it has not relaxed, what drives it drifts, or its
gradients are not the white ones that the closed form is for. The larger effect is named.
Weights that their optimizer turns by a set angle have causes of their own, see
:mod:`smd_hooks.analysis.turning`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..theory import (
    Assumptions,
    LionRule,
    NoPrediction,
    RotationalRule,
    SGDRule,
    UpdateRule,
    check_assumptions,
    direction_memory,
    driving_moment,
    equilibrium_norm,
    relaxation_ratio,
)
from .causes import (
    ALIGNED,
    ASSUMPTION,
    BAND,
    DRIFT,
    IN_EQUILIBRIUM,
    LAW_BAND,
    NO_EQUILIBRIUM,
    NO_PREDICTION,
    NORM_DECAY,
    NOT_INVARIANT,
    OFF_THE_LAW,
    RELAXING,
    TOO_SHORT,
    UNEXPLAINED,
    Cause,
    rounding_cause,
)
from .moments import measured_moments
from .turning import diagnose_turn
from .windows import WINDOW, window_length

ALIGNED_BAND = 0.1
"""Relative excess of the driving moment that makes gradients "aligned"."""
LONG_MEMORY = 0.1
"""Relaxation times that an optimizer's running means may remember at most."""
SHARE = 1 / 3
"""Share of log(Δ/Δ*) that a cause must explain to be the main one."""
SIGNIFICANT = 3.0
"""Standard errors by which a drift must stand out."""

SINCE_THE_JUMP = "since the last jump of lr or weight decay"


def diagnose(predicted: pd.DataFrame, scores: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Name the main cause of each layer's Δ/Δ*.

    Args:
        predicted: What :func:`smd_hooks.analysis.predict` returned.
        scores: What :func:`smd_hooks.analysis.score` returned.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        One row per matrix and joint group: ``parameter``, ``cause`` (a constant of
        :mod:`smd_hooks.analysis.causes`), ``value`` (the cause's number) and ``detail`` (a
        sentence). ``value`` is

        * Δ/Δ* in equilibrium or unexplained,
        * what :func:`smd_hooks.analysis.turning.diagnose_turn` says for rotational weights,
        * z² of what is not scale-invariant,
        * the number of samples where there are too few,
        * the angle in radians that rounding alone makes,
        * the trajectory error of what is off the law,
        * what of an assumption is broken, as :class:`smd_hooks.theory.Assumptions` has it,
        * relaxation times since the last jump where the layer has not relaxed,
        * μτ of a driving moment that goes as e^(μt),
        * the driving moment over that of white gradients where they are aligned,
        * NaN where there is no prediction or no equilibrium.
    """
    decayed = _decayed_norm_parameters(weights)
    by_score = {row["parameter"]: row for row in scores.to_dict("records")}
    by_name = dict(iter(predicted.groupby("parameter"))) if len(predicted) else {}
    rows = []
    for entry in weights.to_dict("records"):
        if not is_unit(entry):
            continue
        name = entry["parameter"]
        cause = _without_scores(entry, by_score.get(name))
        cause = cause or _deviation(entry, by_score[name], by_name[name], decayed)
        rows.append({"parameter": name, **cause._asdict()})
    return pd.DataFrame(rows, columns=["parameter", *Cause._fields])


def is_unit(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of ``run.json`` is a matrix or a joint group of them."""
    shape = entry.get("shape")
    return is_joint(entry) or (
        isinstance(shape, list | tuple) and sum(size > 1 for size in shape) >= 2
    )


def is_joint(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of ``run.json`` stands for several weights."""
    return isinstance(entry.get("members"), list | tuple) and len(entry["members"]) > 0


def _without_scores(entry: Mapping[str, Any], score: Mapping[str, Any] | None) -> Cause | None:
    """What can be said of a layer that has no Δ/Δ* to explain."""
    if entry.get("scale_invariant") is not True:
        statistic = entry.get("statistic")
        value = math.nan if statistic is None else float(statistic)
        return Cause(NOT_INVARIANT, value, _text(entry.get("reason")) or "not decided yet")
    if not isinstance(entry.get("rule"), dict):
        return Cause(NO_PREDICTION, math.nan, _text(entry.get("no_prediction")) or "no rule")
    if score is None:
        return Cause(TOO_SHORT, 0.0, "no samples")
    if score["no_equilibrium"]:
        return Cause(NO_EQUILIBRIUM, math.nan, score["no_equilibrium"])
    if score["samples"] < WINDOW:
        count = score["samples"]
        return Cause(TOO_SHORT, float(count), f"{count} samples {SINCE_THE_JUMP}")
    return None


def _text(value: Any) -> str:
    """What an entry says; pandas fills what it does not say with NaN."""
    return value if isinstance(value, str) else ""


def _deviation(
    entry: Mapping[str, Any],
    score: Mapping[str, Any],
    frame: pd.DataFrame,
    decayed: list[str],
) -> Cause:
    ratio, error = score["angle_ratio"], score["trajectory_error"]
    last = frame[frame["stage"] == frame["stage"].iloc[-1]]
    last = last[last["lr"] > 0]  # a schedule may end at 0, where nothing moves
    if len(last) < WINDOW:
        return Cause(TOO_SHORT, len(last), f"{len(last)} samples that moved the weight")
    rule = UpdateRule.from_json(entry["rule"])
    if isinstance(rule, RotationalRule):
        return diagnose_turn(entry, score, frame, last)
    rule = rule.at(float(last["lr"].iloc[-1]), float(last["weight_decay"].iloc[-1]))
    checked, steps = _check(rule, last)
    # the law is fed with a mean of few steps out of many: it is as uncertain as that
    uncertainty = checked.scatter * math.sqrt((steps[-1] - steps[0]) / (len(steps) - 1))
    off_the_law = error > LAW_BAND * max(1.0, uncertainty)
    if abs(ratio - 1) <= BAND and not off_the_law:
        return Cause(IN_EQUILIBRIUM, ratio, f"Δ/Δ* is {ratio:.2f}")
    rounded = rounding_cause(entry, float(last["equilibrium_angle"].median()))
    if rounded is not None:
        return rounded
    if off_the_law:
        return _off_the_law(error, checked, decayed)
    return (
        _transient(rule, frame, score, checked, steps)
        or _alignment(rule, last)
        or _broken_assumption(checked)
        or Cause(UNEXPLAINED, ratio, "; ".join([f"Δ/Δ* is {ratio:.2f}", *checked.findings]))
    )


def _check(rule: UpdateRule, stage: pd.DataFrame) -> tuple[Assumptions, np.ndarray]:
    """The assumptions over the last two relaxation times: what was before is forgotten."""
    recent = stage[stage["elapsed"] >= stage["elapsed"].iloc[-1] - 2]
    recent = recent if len(recent) >= WINDOW else stage.iloc[-WINDOW:]
    steps = recent["own_step"].to_numpy()
    moment = driving_moment(rule, measured_moments(recent), recent["lr"].to_numpy(float))
    return check_assumptions(rule, steps, moment), steps


def _off_the_law(error: float, checked: Assumptions, decayed: list[str]) -> Cause:
    if decayed:
        detail = f"trajectory error {error:.2f} beside {len(decayed)} norm parameters with decay"
        return Cause(NORM_DECAY, error, f"{detail} ({decayed[0]}, …)")
    return _broken_assumption(checked) or Cause(
        OFF_THE_LAW,
        error,
        f"trajectory error {error:.2f}: rule, scale invariance and measurement do not fit",
    )


def _broken_assumption(checked: Assumptions) -> Cause | None:
    for value, limit in ((checked.oscillation, 1.0), (checked.memory, LONG_MEMORY)):
        if value >= limit:
            return Cause(ASSUMPTION, value, "; ".join(checked.findings))
    return None


def _transient(
    rule: UpdateRule,
    frame: pd.DataFrame,
    score: Mapping[str, Any],
    checked: Assumptions,
    steps: np.ndarray,
) -> Cause | None:
    """The larger of what relaxation and drift do, if it is a good part of the deviation."""
    to_explain = math.log(max(score["angle_ratio"], 1e-12))
    effects = {
        RELAXING: _relaxation_effect(rule, frame),
        DRIFT: _drift_effect(rule, checked, steps, score["elapsed"]),
    }
    cause = max(effects, key=lambda name: effects[name] / to_explain)
    if not effects[cause] / to_explain >= SHARE:
        return None
    if cause == DRIFT:
        detail = f"the driving moment changes by {checked.drift_ratio:+.2f} per relaxation time"
        return Cause(DRIFT, checked.drift_ratio, detail)
    elapsed, expected = score["elapsed"], math.exp(effects[RELAXING])
    detail = f"{elapsed:.1f} relaxation times {SINCE_THE_JUMP} leave Δ/Δ* at {expected:.2f}"
    return Cause(RELAXING, elapsed, detail)


def _relaxation_effect(rule: UpdateRule, frame: pd.DataFrame) -> float:
    """log of the a-priori Δ/Δ* at the end, from the norm where scale invariance began."""
    starts = np.flatnonzero(frame["elapsed"].diff() < 0)
    frame = frame.iloc[starts[-1] if len(starts) else 0 :]
    frame = frame[(frame["lr"] > 0) & (frame["weight_decay"] > 0)]
    first, moment = frame.iloc[0], frame["driving_moment"][frame["elapsed"] <= 1].mean()
    # the schedule is all that counts: some samples, and both sides of each jump
    jumps = np.flatnonzero(frame["stage"].diff() > 0)
    some = np.linspace(0, len(frame) - 1, 500).astype(int)
    frame = frame.iloc[np.unique(np.concatenate([some, jumps, jumps - 1]))]
    try:
        start = rule.at(float(first["lr"]), float(first["weight_decay"]))
        ratio = relaxation_ratio(
            rule,
            frame["own_step"].to_numpy(),
            frame["lr"].to_numpy(),
            frame["weight_decay"].to_numpy(),
            frame["rescale"].to_numpy(),
            initial=float(first["weight_norm"]) / equilibrium_norm(start, float(moment)),
        )
        return math.log(ratio[-1])
    except NoPrediction:
        return 0.0


def _drift_effect(
    rule: UpdateRule, checked: Assumptions, steps: np.ndarray, elapsed: float
) -> float:
    """log of Δ/Δ* after a drift that began in equilibrium.

    With H ∝ e^(μt) and q = 1 + μτ, the norm's law gives (Δ*/Δ)² = e^(−qt/τ) + (1 − e^(−qt/τ))/q,
    which ends at :func:`smd_hooks.theory.drifting_equilibrium_angle` where that exists.
    """
    if isinstance(rule, LionRule):
        return 0.0  # signs have one length: what changes there is their alignment
    # of the difference between the means of two halves, half a stretch apart
    error = 4 * checked.scatter / (math.sqrt(len(steps)) * (steps[-1] - steps[0]))
    if not abs(checked.drift) > SIGNIFICANT * error:
        return 0.0
    q = 1 + checked.drift_ratio
    fallen = min(-q * elapsed, 500.0)  # beyond lies the end of floats
    followed = -math.expm1(fallen) / q if q else elapsed
    return -math.log(math.exp(fallen) + followed) / 2


def _alignment(rule: UpdateRule, stage: pd.DataFrame) -> Cause | None:
    """Of the rules here, only Nesterov and sign rules have a Δ* that alignment moves."""
    window = stage.iloc[-window_length(stage) :]
    moments = measured_moments(window)
    if isinstance(rule, SGDRule) and rule.nesterov:
        white = moments.need("gradient").mean()
    elif isinstance(rule, LionRule):
        white = moments.need("direction").mean() * direction_memory(rule)
    else:
        return None
    excess = float(driving_moment(rule, moments, window["lr"].to_numpy(float)).mean() / white)
    if not abs(excess - 1) > ALIGNED_BAND:
        return None
    return Cause(ALIGNED, excess, f"the driving moment is {excess:.2f} of white gradients'")


def _decayed_norm_parameters(weights: pd.DataFrame) -> list[str]:
    """Gains and biases of the norms behind measured weights that weight decay acts on."""
    if "norms" not in weights or "weight_decay" not in weights:
        return []
    norms = {name for names in weights["norms"] if isinstance(names, list) for name in names}
    decayed = weights[weights["weight_decay"].fillna(0) > 0]["parameter"]
    return [name for name in decayed if name.rpartition(".")[0] in norms]
