"""Δ/Δ* along a schedule of hundreds of thousands of stretches at constant learning rate.

The law is that of :func:`smd_hooks.theory.relaxation_ratio`, which is the readable reference.
Here y = (r/r*)^(2+2p) is carried in units in which its equilibrium is η itself, so that a
change of the learning rate costs nothing and a rate of 0 is no special case: over n steps
y ← η + (y − η)·e^(−n/τ), with 1/τ = K·η and Δ/Δ* = √(η/y).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...theory import RotationalRule, UpdateRule, relaxation_time, step_exponent

TOLERANCE = 0.05
"""Δ/Δ* within this of 1 counts as equilibrium."""
SETTLED = 3.0
"""Relaxation times before which EquilibriumRescaleHook does not follow a rising rate."""


@dataclass(frozen=True)
class Relaxation:
    """A weight's way through all stretches.

    Attributes:
        ratio_start: Δ/Δ* at each stretch's first step, shape (stretches,); NaN where lr is 0.
        ratio_end: The same at its last step.
        passed: Relaxation times passed before each stretch, and in all: (stretches + 1,).
        tau: τ in each stretch, in steps; infinite where lr is 0.
    """

    ratio_start: np.ndarray
    ratio_end: np.ndarray
    passed: np.ndarray
    tau: np.ndarray


def relax(
    rule: UpdateRule,
    starts: np.ndarray,
    steps: int,
    lr: np.ndarray,
    initial: float = 1.0,
    rescaled: bool = False,
) -> Relaxation:
    """Carry a scale-invariant weight through a schedule.

    Args:
        rule: The update rule with its weight decay; its lr is not used.
        starts: First step of each stretch, shape (stretches,).
        steps: Number of steps in all.
        lr: η of each stretch, shape (stretches,).
        initial: ‖w‖ at the first step over its equilibrium norm at the highest η.
        rescaled: Whether weights follow the learning rate as under EquilibriumRescaleHook.

    Raises:
        NoPrediction: There is no equilibrium at the highest learning rate.

    Source: derived from Theorem 2 of Wan et al., *Spherical Motion Dynamics*.
    """
    counts = np.diff(np.append(starts, steps))
    if isinstance(rule, RotationalRule):
        ones, nothing = np.where(lr > 0, 1.0, np.nan), np.zeros(len(lr))
        return Relaxation(ones, ones, np.append(nothing, 0.0), nothing)
    peak = float(lr.max())
    tau_at_peak = relaxation_time(rule.at(peak, rule.weight_decay))
    rates = lr / (peak * tau_at_peak)
    passed = np.append(0.0, np.cumsum(counts * rates))
    to_last, whole = np.exp(-(counts - 1) * rates), np.exp(-counts * rates)
    start, end = np.empty(len(lr)), np.empty(len(lr))
    y, before, taken = initial ** (2 + 2 * step_exponent(rule)) * peak, float(lr[0]), 1.0
    stretches = zip(lr.tolist(), to_last.tolist(), whole.tolist(), passed.tolist(), strict=False)
    for i, (eta, almost, all_of_it, age) in enumerate(stretches):
        if rescaled and eta != before and eta > 0 and before > 0:
            # a fall is followed; so is a rise, but early only as far as falls took norm away
            factor = eta / before
            if factor > 1 and age < SETTLED:
                factor = min(factor, 1 / taken)
            taken *= factor
            y *= factor
        before = eta or before
        start[i] = y
        end[i] = eta + (y - eta) * almost
        y = eta + (y - eta) * all_of_it
    with np.errstate(divide="ignore", invalid="ignore"):
        tau = np.where(rates > 0, 1 / rates, np.inf)
        known = np.where(lr > 0, lr, np.nan)
        return Relaxation(np.sqrt(known / start), np.sqrt(known / end), passed, tau)


def relaxation_times_needed(ratio: float, tolerance: float = TOLERANCE) -> float:
    """Relaxation times at constant learning rate until Δ/Δ* is within ``tolerance`` of 1.

    From [1 + (x − 1)·e^(−t/τ)]^(−1/2), where x is 1/ratio².

    >>> round(relaxation_times_needed(10**-0.5), 2)  # after lr/10
    4.42
    """
    off = ratio**-2 - 1
    limit = (1 - tolerance if off > 0 else 1 + tolerance) ** -2 - 1
    return max(0.0, math.log(off / limit)) if off else 0.0


def forgotten_norms(rule: UpdateRule, relaxation_times: float) -> tuple[float, float]:
    """Smallest and largest r/r* from which Δ/Δ* comes to within :data:`TOLERANCE` in so many τ.

    The smallest is 0 once even a weight that began at 0 has grown enough.
    """
    power = 1 / (2 + 2 * step_exponent(rule))
    off = math.log((1 - TOLERANCE) ** -2 - 1) + relaxation_times
    largest = math.exp(min(power * float(np.logaddexp(0.0, off)), 700.0))  # near the largest float
    missing = (1 - (1 + TOLERANCE) ** -2) * math.exp(min(relaxation_times, 700.0))
    return max(1 - missing, 0.0) ** power, largest
