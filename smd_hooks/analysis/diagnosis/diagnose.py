"""Why a layer does not turn as fast as its equilibrium says, one main cause each.

A layer off the trajectory law is off for a reason that lies outside the law: rounding,
neighbours that decay, an assumption that does not hold. A layer that follows the law but
not the equilibrium is on its way: it has not relaxed, what drives it drifts, or its
gradients are not the white ones that the closed form is for. The larger effect is named.
What chance alone may do in so short a window is no finding: equilibrium is a state of noise.
Weights that their optimizer turns by a set angle have causes of their own, see
:mod:`smd_hooks.analysis.diagnosis.turning`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ...theory import (
    Assumptions,
    LionRule,
    RotationalRule,
    SGDRule,
    UpdateRule,
    check_assumptions,
    direction_memory,
    driving_moment,
)
from ..agreement.columns import Columns, middle, of_each_weight
from ..agreement.moments import measured_moments
from ..agreement.windows import BAND, WINDOW, window_length
from .causes import (
    ALIGNED,
    ASSUMPTION,
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
    relaxation_times,
    rounding_cause,
)
from .transients import memory_of_angle, memory_of_moment, standard_error, transient_effects
from .turning import diagnose_turn

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
        :mod:`smd_hooks.analysis.diagnosis.causes`), ``value`` (the cause's number) and
        ``detail`` (a sentence). ``value`` is

        * Δ/Δ* in equilibrium or unexplained,
        * what :func:`~smd_hooks.analysis.diagnosis.turning.diagnose_turn` says for rotational
          weights,
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
    samples, rows = of_each_weight(predicted), []
    for index, entry in enumerate(weights.to_dict("records")):
        if not is_unit(entry):
            continue
        name = entry["parameter"]
        cause = _without_scores(entry, by_score.get(name) if index in samples else None)
        cause = cause or _deviation(entry, by_score[name], samples[index], decayed)
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
    entry: Mapping[str, Any], score: Mapping[str, Any], samples: Columns, decayed: list[str]
) -> Cause:
    ratio, error = score["angle_ratio"], score["trajectory_error"]
    last = samples.at(slice(np.searchsorted(samples["stage"], samples["stage"][-1]), None))
    last = last.at(last["lr"] > 0)  # a schedule may end at 0, where nothing moves
    count = len(last["lr"])
    if count < WINDOW:
        return Cause(TOO_SHORT, count, f"{count} samples that moved the weight")
    rule = UpdateRule.from_json(entry["rule"])
    if isinstance(rule, RotationalRule):
        return diagnose_turn(entry, score, samples, last)
    rule = rule.at(float(last["lr"][-1]), float(last["weight_decay"][-1]))
    moment = driving_moment(rule, measured_moments(last), last["lr"])
    checked = _check(rule, last, moment)
    # the law is fed with a mean of few steps out of many: it is as uncertain as that
    interval = (last["own_step"][-1] - last["own_step"][0]) / (count - 1)
    uncertainty = checked.scatter * math.sqrt(interval)
    off_the_law = error > LAW_BAND * max(1.0, uncertainty)
    if abs(ratio - 1) <= BAND and not off_the_law:
        return Cause(IN_EQUILIBRIUM, ratio, f"Δ/Δ* is {ratio:.2f}")
    rounded = rounding_cause(entry, middle(last["equilibrium_angle"]))
    if rounded is not None:
        return rounded
    # where the driving moment falls by orders of magnitude, its window means lag behind it:
    # an error of the law that is small beside the deviation is no cause of that
    explains = error >= SHARE * abs(math.log(max(ratio, 1e-12)))
    if off_the_law and explains:
        return _off_the_law(error, checked, decayed)
    transient = _transient(rule, samples, last, score, checked, moment)
    if off_the_law and (transient is None or transient.cause != DRIFT):
        return _off_the_law(error, checked, decayed)
    return (
        transient
        or _alignment(rule, last)
        or _broken_assumption(checked)
        or _fluctuation(rule, last, ratio)
        or Cause(UNEXPLAINED, ratio, "; ".join([f"Δ/Δ* is {ratio:.2f}", *checked.findings]))
    )


def _check(rule: UpdateRule, stage: Columns, moment: np.ndarray) -> Assumptions:
    """The assumptions over the last two relaxation times: what was before is forgotten."""
    elapsed = stage["elapsed"]
    begin = np.searchsorted(elapsed, elapsed[-1] - 2)
    recent = slice(min(begin, len(elapsed) - WINDOW), None)
    return check_assumptions(rule, stage["own_step"][recent], moment[recent])


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
    samples: Columns,
    last: Columns,
    score: Mapping[str, Any],
    checked: Assumptions,
    moment: np.ndarray,
) -> Cause | None:
    """The larger of what relaxation and drift do, if it is a good part of the deviation."""
    to_explain = math.log(max(score["angle_ratio"], 1e-12))
    relaxing, driven = transient_effects(rule, samples)
    if isinstance(rule, LionRule):
        driven = 0.0  # signs have one length: what changes there is their alignment
    error = SIGNIFICANT * standard_error(rule, last, moment, memory_of_moment(rule))
    effects = {RELAXING: relaxing, DRIFT: driven if abs(driven) > error else 0.0}
    cause = max(effects, key=lambda name: effects[name] / to_explain)
    if not effects[cause] / to_explain >= SHARE:
        return None
    if cause == DRIFT:
        if not checked.drift_ratio * driven > 0:  # it is over: then the stage's mean
            checked = check_assumptions(rule, last["own_step"], moment)
        detail = f"the driving moment changes by {checked.drift_ratio:+.2f} per relaxation time"
        return Cause(DRIFT, checked.drift_ratio, detail)
    elapsed, expected = score["elapsed"], math.exp(relaxing)
    detail = f"{relaxation_times(elapsed)} {SINCE_THE_JUMP} leave Δ/Δ* at {expected:.2f}"
    return Cause(RELAXING, elapsed, detail)


def _fluctuation(rule: UpdateRule, last: Columns, ratio: float) -> Cause | None:
    """Equilibrium is a state of noise: what is within it needs no other cause."""
    square = last["angular_update"] ** 2
    error = SIGNIFICANT * standard_error(rule, last, square, memory_of_angle(rule))
    if not (ratio > 0 and abs(math.log(ratio)) <= error):
        return None
    detail = (
        f"Δ/Δ* is {ratio:.2f}; by chance it may be {math.exp(-error):.2f} to {math.exp(error):.2f}"
    )
    return Cause(IN_EQUILIBRIUM, ratio, detail)


def _alignment(rule: UpdateRule, stage: Columns) -> Cause | None:
    """Of the rules here, only Nesterov and sign rules have a Δ* that alignment moves."""
    window = stage.at(slice(-window_length(stage["elapsed"]), None))
    moments = measured_moments(window)
    if isinstance(rule, SGDRule) and rule.nesterov:
        white = moments.need("gradient").mean()
    elif isinstance(rule, LionRule):
        white = moments.need("direction").mean() * direction_memory(rule)
    else:
        return None
    excess = float(driving_moment(rule, moments, window["lr"]).mean() / white)
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
