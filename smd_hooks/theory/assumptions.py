"""Whether a measured weight meets what the equilibrium's derivation assumes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .diffusion import decay_rate
from .equilibrium import drifting_equilibrium_angle, equilibrium_angle, relaxation_time
from .update_rules import AdamRule, LionRule, NoPrediction, SGDRule, UpdateRule

SCATTER = 1.0
"""√V/L beyond which single steps say nothing and windows must be long."""
SHIFT = 0.05
"""Relative change of Δ by drift that is worth a finding."""
SIGNIFICANT = 3.0
"""Standard errors that a drift must stand out by."""
SHORT_MEMORY = 0.1
"""Share of a relaxation time that an optimizer's running means may remember at most."""


@dataclass(frozen=True)
class Assumptions:
    """How far one weight is from the theorems' assumptions; NaN where one does not apply.

    Attributes:
        scatter: √V/L, V the variance and L the mean of the driving moment h̃.
        smallest: min h̃/L; the theorems ask for a positive lower bound.
        drift: μ per step in E h̃ ∝ e^(μt).
        drift_ratio: μτ; Δ/Δ* is √(1 + μτ), and at −1 there is no equilibrium.
        oscillation: ηλ/(1−√α)², below 1 or the norm oscillates (coupled heavy ball).
        memory: 1/((1−β₂)τ) for AdamW and sign rules; well below 1, or what the optimizer
            remembers is older than the weight's direction.
        findings: What does not hold, in plain words, each with its number.
    """

    scatter: float
    smallest: float
    drift: float
    drift_ratio: float
    oscillation: float
    memory: float
    findings: tuple[str, ...]


def check_assumptions(rule: UpdateRule, steps: ArrayLike, moment: ArrayLike) -> Assumptions:
    """Hold a stretch of samples of one weight, at constant lr, against the assumptions.

    Args:
        rule: The update rule, at the stretch's learning rate and weight decay.
        steps: Sampled optimizer steps, evenly spaced, shape (samples,).
        moment: Driving moment of each single sample (not window means), see
            :func:`smd_hooks.theory.driving_moment`, shape (samples,).

    Raises:
        NoPrediction: The rule has no equilibrium whose assumptions could be checked.
        ValueError: Fewer than 8 samples.

    Source: assumptions of Theorems 1–3 of Wan et al., *Spherical Motion Dynamics*; drift
    and Adam's memory are derived.
    """
    steps, moment = np.asarray(steps, float), np.asarray(moment, float)
    if len(moment) < 8:
        raise ValueError(f"check_assumptions: 8 samples are needed, got {len(moment)}")
    tau, mean = relaxation_time(rule), float(moment.mean())
    drift, error = _drift(steps, moment)
    oscillation = memory = math.nan
    if isinstance(rule, SGDRule) and rule.momentum and not rule.decoupled and not rule.nesterov:
        a = rule.momentum
        oscillation = decay_rate(rule) * (1 - a) / (1 - math.sqrt(a)) ** 2
    if isinstance(rule, AdamRule | LionRule):
        memory = 1 / ((1 - rule.beta2) * tau)
    checked = Assumptions(
        scatter=float(moment.std()) / mean if mean > 0 else math.nan,
        smallest=float(moment.min()) / mean if mean > 0 else math.nan,
        drift=drift,
        drift_ratio=drift * tau,
        oscillation=oscillation,
        memory=memory,
        findings=(),
    )
    stands_out = abs(drift) > SIGNIFICANT * error
    return Assumptions(**{**vars(checked), "findings": _findings(rule, checked, mean, stands_out)})


def _drift(steps: np.ndarray, moment: np.ndarray) -> tuple[float, float]:
    """μ and its standard error from the means of two halves: exact for an exponential."""
    half = len(steps) // 2
    early, late = moment[:half], moment[-half:]
    apart = float(steps[-half:].mean() - steps[:half].mean())
    if not (early.mean() > 0 and late.mean() > 0):
        return math.nan, math.nan
    error = math.hypot(*(part.std() / part.mean() / math.sqrt(half) for part in (early, late)))
    return math.log(late.mean() / early.mean()) / apart, error / apart


def _findings(rule: UpdateRule, checked: Assumptions, mean: float, drifts: bool) -> tuple[str, ...]:
    found = []
    if not mean > 0:
        found.append(
            "the driving moment is not positive on average: gradients oppose the momentum "
            "more than they are large"
        )
    if checked.scatter > SCATTER:
        found.append(
            f"the driving moment scatters by {checked.scatter:.1f} of its mean from step to "
            "step: only means over long windows can agree with theory"
        )
    if checked.smallest <= 0:
        found.append(
            f"the driving moment falls to {checked.smallest:.2g} of its mean, where the theorems "
            "ask for a positive lower bound"
        )
    if drifts:
        found += _drift_finding(rule, checked.drift)
    if checked.oscillation >= 1:
        found.append(
            f"lr · weight_decay is {checked.oscillation:.2g} of (1 − √momentum)²: the norm "
            "oscillates instead of relaxing"
        )
    if checked.memory > SHORT_MEMORY:
        found.append(
            f"beta2 lets the optimizer remember {checked.memory:.2g} relaxation times: gradients "
            "from before the weight turned"
        )
    return tuple(found)


def _drift_finding(rule: UpdateRule, drift: float) -> list[str]:
    try:
        ratio = drifting_equilibrium_angle(rule, drift) / equilibrium_angle(rule)
    except NoPrediction:
        return [f"the driving moment falls by {-drift:.2g} per step, faster than the norm follows"]
    if abs(ratio - 1) <= SHIFT:
        return []
    way = "grows" if drift > 0 else "falls"
    return [
        f"the driving moment {way} by {abs(drift):.2g} per step: the angle to expect is "
        f"{ratio:.2f} of equilibrium's"
    ]
