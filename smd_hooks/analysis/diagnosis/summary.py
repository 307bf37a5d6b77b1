"""A run's agreement with theory in a few numbers and a few words."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...theory import RotationalRule
from ...theory.update_rules import FAMILIES
from ..agreement.windows import BAND, WINDOW
from .causes import (
    IN_EQUILIBRIUM,
    MOVED,
    NO_PREDICTION,
    NOT_INVARIANT,
    RELAXING,
    TURNED_AS_SET,
    relaxation_times,
)
from .diagnose import SINCE_THE_JUMP, is_joint, is_unit

WIDE_BAND = 0.15
"""Half width that the middle nine tenths of the layers must keep to, relative."""
RELAXED = 4.4
"""Relaxation times after which a ÷10 drop should be within 5 % of equilibrium."""


def summarize(
    scores: pd.DataFrame,
    weights: pd.DataFrame,
    measured: bool,
    causes: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Put a run's scores into the table's agreement columns.

    Args:
        scores: What :func:`score` returned; empty where nothing could be predicted.
        weights: One row per weight, as ``run.json`` has them.
        measured: Whether the run has records at all.
        causes: What :func:`smd_hooks.analysis.diagnosis.diagnose` returned, for a verdict
            that says why.

    Returns:
        ``si_params`` (matrices that are scale-invariant, alone or jointly, of all),
        ``angle_ratio`` with its percentiles, ``in_equilibrium`` (share of weights within
        5 % of Δ*), ``trajectory_error``, ``norm_ratio``, ``verdict``.
    """
    result: dict[str, Any] = {"verdict": _verdict(scores, weights, measured, causes)}
    if measured and "scale_invariant" in weights:
        result["si_params"] = _count_invariant(weights)
    ratios = _ratios(scores)
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


def _ratios(scores: pd.DataFrame) -> pd.Series:
    """Δ/Δ* by parameter."""
    if not len(scores):
        return pd.Series(dtype=float)
    return scores.set_index("parameter")["angle_ratio"].dropna()


def _count_invariant(weights: pd.DataFrame) -> str:
    units = [entry for entry in weights.to_dict("records") if is_unit(entry)]
    groups = [entry["members"] for entry in units if is_joint(entry)]
    jointly = {name for members in groups for name in members}
    matrices = [entry for entry in units if not is_joint(entry)]
    # by name: one that several optimizers step has several entries
    invariant = {
        m["parameter"]: m["scale_invariant"] is True or m["parameter"] in jointly for m in matrices
    }
    return f"{sum(invariant.values())}/{len(invariant)}"


def _verdict(
    scores: pd.DataFrame, weights: pd.DataFrame, measured: bool, causes: pd.DataFrame | None
) -> str:
    if not measured:
        return "not measured"
    if "scale_invariant" not in weights:
        return "too short: no verdict on scale invariance yet"
    invariant = weights[[v is True for v in weights["scale_invariant"]]]
    if not len(invariant):
        matrices = weights[[is_unit(entry) for entry in weights.to_dict("records")]]
        why = matrices["reason"].mode().iloc[0] if len(matrices) else "there is no weight matrix"
        return f"nothing is scale-invariant: {why}{_turned_all_the_same(matrices)}"
    told = zip(invariant["parameter"], invariant["no_prediction"], strict=True)
    reasons = {name: reason for name, reason in told if isinstance(reason, str) and reason}
    if not len(scores):
        return next(iter(reasons.values()), "too short: no samples of scale-invariant weights")
    verdict = _verdict_on_both(scores, causes)
    return f"{verdict} ({len(reasons)} without a prediction)" if reasons else verdict


def _turned_all_the_same(matrices: pd.DataFrame) -> str:
    """What an optimizer turns by a set angle it turns without scale invariance, too."""
    rules = [rule for rule in matrices.get("rule", []) if isinstance(rule, dict)]
    turned = sum(FAMILIES.get(rule.get("type")) is RotationalRule for rule in rules)
    if not turned:
        return ""
    return f"; the optimizer sets the angle of {turned} of {len(matrices)} matrices all the same"


def _verdict_on_both(scores: pd.DataFrame, causes: pd.DataFrame | None) -> str:
    """One verdict on what the optimizer turns by a set angle, one on the rest, if there is any."""
    turned = scores["rotational"].astype(bool)
    if turned.all() or not turned.any():
        return _verdict_on(scores, causes)
    verdicts = []
    for part in (scores[turned], scores[~turned]):
        named = None if causes is None else causes[causes["parameter"].isin(part["parameter"])]
        verdicts.append(f"{_verdict_on(part, named)} ({len(part)} of {len(scores)})")
    return "; ".join(verdicts)


def _verdict_on(scores: pd.DataFrame, causes: pd.DataFrame | None) -> str:
    ratios = _ratios(scores)
    if not len(ratios):
        return str(scores["no_equilibrium"].mode().iloc[0])
    if scores["samples"].median() < WINDOW:
        return f"too short: {scores['samples'].median():.0f} samples {SINCE_THE_JUMP}"
    turned = bool(scores["rotational"].iloc[0])
    return _describe(ratios, float(scores["elapsed"].median()), causes, turned)


def _describe(ratios: pd.Series, elapsed: float, causes: pd.DataFrame | None, turned: bool) -> str:
    ratio = float(ratios.median())
    if abs(ratio - 1) <= BAND:
        low, high = ratios.quantile(0.05), ratios.quantile(0.95)
        if low < 1 - WIDE_BAND or high > 1 + WIDE_BAND:
            agrees = TURNED_AS_SET if turned else IN_EQUILIBRIUM
            return f"{agrees} in the median, layers from {low:.2f} to {high:.2f}"
        return _turned_as_set(ratios, causes) if turned else IN_EQUILIBRIUM
    side = "above" if ratio > 1 else "below"
    if turned:
        return f"{side} the set angle by {abs(ratio - 1):.0%}{_main_cause(causes)}"
    shared = RELAXING if elapsed < RELAXED else ""
    if causes is not None:
        named = causes["cause"][causes["parameter"].isin(ratios.index)]
        shared = named.mode().iloc[0] if len(named) else shared
    if shared == RELAXING:
        return f"{side} equilibrium: {relaxation_times(elapsed)} {SINCE_THE_JUMP}"
    if shared == IN_EQUILIBRIUM:
        return f"{IN_EQUILIBRIUM} as far as can be told: Δ/Δ* is {ratio:.2f} in the median"
    return f"{side} equilibrium by {abs(ratio - 1):.0%}{_main_cause(causes)}"


def _turned_as_set(ratios: pd.Series, causes: pd.DataFrame | None) -> str:
    moved = 0 if causes is None else int((causes["cause"] == MOVED).sum())
    if moved:
        return f"{TURNED_AS_SET}, but {MOVED} in {moved} of {len(ratios)} layers"
    return f"{TURNED_AS_SET}: in equilibrium by construction"


def _main_cause(causes: pd.DataFrame | None) -> str:
    """The cause that most of the layers off their angle share."""
    named = causes["cause"] if causes is not None else pd.Series(dtype=str)
    fine = (IN_EQUILIBRIUM, TURNED_AS_SET, NOT_INVARIANT, NO_PREDICTION)
    named = named[~named.isin(fine)]
    if not len(named):
        return ""
    return f": {named.mode().iloc[0]} in {named.value_counts().max()} of {len(named)} such layers"
