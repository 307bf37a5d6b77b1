"""Runs of a grid of warmups and learning rates whose final scores are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from smd_hooks.analysis.claims.claim import Experiment
from smd_hooks.analysis.reading.run import Run
from tests.analysis.claims.constructed import bare_run

RATES = (6e-4, 1.2e-3, 2.4e-3)
BEST = RATES[1]
WARMUPS = (0.0, 0.1, 0.5)
SPREAD = (-0.002, 0.0, 0.002)
"""How far the seeds' gaps are from their mean: ± 4.303 · .002/√3 = .005."""
LEVEL = (0.0, 0.3, -0.2)
"""What each seed has in common at all settings: pairs of runs must not see it."""


def end(value: float, warmup: float, lr: float, seed: int, metric: str = "val/loss") -> Run:
    """A run that finished with this score."""
    points = {} if math.isnan(value) else {metric: [(100, 9.0), (5000, value)]}
    return bare_run(f"warmup{warmup}-lr{lr}-seed{seed}", points, warmup=warmup, lr=lr)


def grid(
    gap: float,
    at: float = 3.3,
    spread: Sequence[float] = SPREAD,
    sign: int = 1,
    metric: str = "val/loss",
    best: float = BEST,
) -> list[Run]:
    """Each warmup at each learning rate on each seed, the gap of each seed being gap + spread.

    All learning rates but one are worse by as much everywhere, and so is the shorter warmup.

    Args:
        gap: What a warmup gains.
        at: The best score with a warmup, mean of the seeds but for their levels.
        spread: By seed; their mean is 0.
        sign: −1 where the highest is best.
        metric: What the score is.
        best: That learning rate.
    """
    worse: Mapping[float, float] = {0.0: gap, 0.1: 0.02, 0.5: 0.0}
    return [
        end(
            at + sign * (worse[w] + 0.05 * (lr != best) + (spread[s] if not w else 0)) + LEVEL[s],
            *(w, lr, s, metric),
        )
        for w in WARMUPS
        for lr in RATES
        for s in range(len(spread))
    ]


def in_grid(runs: Sequence[Run], *lost: tuple[float, float, int]) -> Experiment:
    """AdamW's grid, in which the runs at these places (warmup, lr, seed) diverged."""
    names = {f"warmup{w}-lr{lr}-seed{s}" for w, lr, s in lost}
    kept = [run for run in runs if run.name not in names]
    diverged = [run for run in runs if run.name in names]
    assert len(diverged) == len(lost)
    return Experiment("warmup-gpt", "", {"adamw": kept}, {"adamw": diverged})
