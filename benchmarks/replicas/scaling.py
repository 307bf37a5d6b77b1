"""How much faster a replica may run, and which of its steps stands for which of the original's.

A scale-invariant weight's Δ/Δ* depends on time only through relaxation times: with weight
decay × f and 1/f of the steps, every stage keeps its length in them, and the curve is the
original's (theory: the relaxation law in :mod:`smd_hooks.theory`; derived). Two things end
that: a relaxation that takes few steps is none, and with too much lr · weight_decay heavy-ball
momentum makes the norm oscillate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from smd_hooks.theory import AdamRule, NoPrediction, SGDRule, UpdateRule, relaxation_time

SHORTEST = 50.0
"""Relaxation time in steps below which the laws, first-order in lr · weight_decay, are off."""
BELOW_OSCILLATION = 0.999
"""Share of the limit on lr · weight_decay that is used at most."""
RAMP = 10
"""Steps of a warmup at least: in fewer, a rising learning rate is a jump, and a stage by itself."""
LONG_ENOUGH = 0.01
"""1 − beta2 at most: a mean of fewer than its inverse of squared gradients is a noisy one."""


def slowdown(rule: UpdateRule) -> float:
    """Relaxation time of a rule in steps; NaN where nothing relaxes or that is not known."""
    try:
        return relaxation_time(rule)
    except NoPrediction:
        return math.nan


def common_factor(rules: Sequence[UpdateRule]) -> float:
    """Return the largest f that all rules can have their weight decay multiplied by.

    Args:
        rules: Update rules at the highest learning rate of their schedules.

    Returns:
        f ≥ 1, to six digits; 1 where even the original relaxes as fast as it may, or no
        rule relaxes at all.
    """
    bounds = [bound for rule in rules for bound in _bounds(rule) if math.isfinite(bound)]
    return float(f"{max(1.0, min(bounds, default=1.0)):.6g}")


def _bounds(rule: UpdateRule) -> list[float]:
    bounds = [slowdown(rule) / SHORTEST]
    if isinstance(rule, SGDRule) and not rule.decoupled and rule.lr * rule.weight_decay > 0:
        a = rule.momentum
        limit = ((1 - a) / (1 + a)) ** 2 if rule.nesterov else (1 - math.sqrt(a)) ** 2
        product = rule.lr * rule.weight_decay * (1 - rule.dampening)
        bounds.append(BELOW_OSCILLATION * limit / product)
    return bounds


def decay_multiplier(rule: UpdateRule, factor: float) -> float:
    """Factor on weight decay that makes all relaxation ``factor`` times as fast.

    It is ``factor`` itself but for Adam with L2: its norm relaxes at a rate ∝ lr · λ · r*
    with r*³ ∝ lr/λ, so that λ must grow by the power 3/2 (derived).
    """
    coupled = isinstance(rule, AdamRule) and not rule.decoupled
    return float(f"{factor ** (1.5 if coupled else 1.0):.6g}")


def second_moment_decay(beta2: float, factor: float) -> float:
    """Adam's beta2 for a replica: its memory is scaled as all times are, down to 100 steps.

    Left alone it would outlast many relaxation times, and second moments would be those of
    gradients from before the weight turned.
    """
    forgotten = 1 - beta2
    return float(f"{1 - min(factor * forgotten, max(forgotten, LONG_ENOUGH)):.6g}")


@dataclass(frozen=True)
class Segment:
    """A piece of the original's schedule.

    Attributes:
        start, end: Iterations, ``end`` not in it.
        level: Its constant learning rate as a share of the schedule's highest; None along a
            ramp.
    """

    start: int
    end: int
    level: float | None


def segments(knots: Sequence[int], starts: np.ndarray, steps: int, lr: np.ndarray) -> list[Segment]:
    """Cut a schedule at its knots.

    Args:
        knots: Iterations at which a scheduler begins, ends or drops the rate.
        starts: First iteration of each stretch of constant learning rate, shape (stretches,).
        steps: Iterations in all.
        lr: The rates, shape (stretches,).
    """
    bounds = sorted({0, steps, *(k for k in knots if 0 < k < steps)})
    found = []
    for start, end in pairwise(bounds):
        first, last = np.searchsorted(starts, [start, end - 1], side="right") - 1
        level = float(lr[first] / lr.max()) if first == last else None
        found.append(Segment(start, end, level))
    return found


@dataclass(frozen=True)
class TimeMap:
    """Which iteration of the replica stands for one of the original's, linear between knots.

    Attributes:
        original, replica: Increasing iterations, from 0 to the end.
        factor: Iterations of the original per iteration, but where the replica is cut.
    """

    original: tuple[int, ...]
    replica: tuple[int, ...]
    factor: float

    def __call__(self, iteration: float) -> int:
        """Map an iteration; what lies beyond the end is scaled from there on."""
        beyond = max(0.0, iteration - self.original[-1]) / self.factor
        return round(float(np.interp(iteration, self.original, self.replica)) + beyond)


def time_map(pieces: Sequence[Segment], factor: float, longest: float) -> TimeMap:
    """Lay out a replica's time.

    Args:
        pieces: The original's schedule, piece by piece.
        factor: Iterations of the original per iteration of the replica.
        longest: Iterations of the original at its highest learning rate, beyond which a
            stage is cut off; at a lower rate, in proportion more. In equilibrium nothing
            changes any more. A ramp is never cut.

    Returns:
        The map. Each piece has the nearest whole number of iterations, so that its length in
        relaxation times is right to half a step; but one at least, and a ramp ten.
    """
    replica = [0]
    for piece in pieces:
        length = piece.end - piece.start
        if piece.level is None:
            steps = max(round(length / factor), min(RAMP, length))
        else:
            steps = max(round(kept_length(piece, longest) / factor), 1)
        replica.append(replica[-1] + steps)
    return TimeMap((0, *(piece.end for piece in pieces)), tuple(replica), factor)


def kept_length(piece: Segment, longest: float) -> float:
    """Iterations of the original that a replica keeps of a piece."""
    length = piece.end - piece.start
    return length if not piece.level else min(length, longest / piece.level)
