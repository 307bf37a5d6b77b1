"""Splits a learning-rate schedule into the stages that people speak of.

A schedule comes as stretches of constant learning rate: a handful for a stepwise one, but
one per epoch or per step along a warmup or a cosine. Stretches of like length on which the
rate goes on in one direction, by less than :data:`DROP`, are a single ramp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DROP = 1.5
"""Factor on the learning rate from which on a change is a drop, not a step of a ramp."""
BRIEF = 1e-3
"""Share of all steps up to which a stretch at the end of a ramp belongs to it."""
ALIKE = 1.5
"""Factor that lengths of neighbouring stretches of one ramp may differ by."""


@dataclass(frozen=True)
class Span:
    """A stage as a range of stretches, ``first`` to ``last`` with both in it.

    Attributes:
        kind: ``"constant"``, ``"rising"`` or ``"falling"``.
    """

    kind: str
    first: int
    last: int


def split_stages(starts: np.ndarray, steps: int, lr: np.ndarray) -> list[Span]:
    """Find the ramps of a schedule, and with them its stages.

    Args:
        starts: First step of each stretch, shape (stretches,).
        steps: Number of steps in all.
        lr: Learning rate of each stretch, each different from the one before.

    Returns:
        Stages in their order; every stretch belongs to one.
    """
    counts = np.diff(np.append(starts, steps))
    ramps = _ramps(counts, lr)
    spans, next_one = [], 0
    for ramp in [*ramps, Span("", len(lr), len(lr))]:
        spans += [Span("constant", i, i) for i in range(next_one, ramp.first)]
        spans += [ramp] if ramp.kind else []
        next_one = ramp.last + 1
    return spans


def _ramps(counts: np.ndarray, lr: np.ndarray) -> list[Span]:
    if len(lr) < 4:
        return []
    direction = np.sign(np.diff(lr))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.exp(np.abs(np.diff(np.log(lr))))
    # inner stretches of a ramp: the rate changes the same way on both sides, on one gently
    inner = (direction[1:] == direction[:-1]) & (np.fmin(factor[1:], factor[:-1]) < DROP)
    alike = np.maximum(counts[1:], counts[:-1]) <= ALIKE * np.minimum(counts[1:], counts[:-1])
    begins = np.ones(len(inner), bool)
    begins[1:] = ~(inner[:-1] & inner[1:] & alike[1:-1] & (direction[1:-1] == direction[:-2]))
    ramps: list[Span] = []
    firsts = np.flatnonzero(begins)
    for first, last in zip(firsts, np.append(firsts[1:], len(inner)) - 1, strict=True):
        if inner[first] and last > first:
            kind = "rising" if direction[first] > 0 else "falling"
            floor = ramps[-1].last + 1 if ramps else 0
            ramps.append(_grown(kind, int(first) + 1, int(last) + 1, counts, direction, floor))
    return ramps


def _grown(
    kind: str, first: int, last: int, counts: np.ndarray, direction: np.ndarray, floor: int
) -> Span:
    """Take in the ends of a ramp, where the rate changes fast or only on one side."""
    longest = max(ALIKE * float(np.median(counts[first : last + 1])), BRIEF * float(counts.sum()))
    way = direction[first]
    while first > floor and direction[first - 1] == way and counts[first - 1] <= longest:
        first -= 1
    while last < len(counts) - 1 and direction[last] == way and counts[last + 1] <= longest:
        last += 1
    return Span(kind, first, last)
