"""What a warmup gains each optimizer, in a table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from smd_hooks.analysis.claims.claim import CannotTell, Experiment
from smd_hooks.analysis.claims.spread import CONFIDENCE
from smd_hooks.analysis.claims.warmup_checks import reading
from smd_hooks.analysis.claims.warmup_grid import MEASURES, Best, Measure, grid_of

from .suite import Axis

COLUMNS = (
    *("experiment", "role", "metric", "seeds"),
    *("gap", "gap_low", "gap_high", "gap_smallest", "gap_largest", "reading"),
    *("without_mean", "without_std", "without_lr", "without_of", "without_diverged"),
    *("with_mean", "with_std", "with_lr", "with_warmup", "with_of", "with_diverged"),
    *("at_the_edge", "runs", "diverged", "missing"),
)
SHOWN = ["experiment", "role", "metric", "seeds", "gap", "gap_low", "gap_high", "reading"]
"""What of it a terminal has room for."""
EXPLANATION = (
    "gap: how much better an optimizer ends at its best setting with a warmup than at its best "
    "without, mean over seeds, in the metric's units; what diverged is worst. gap_low to gap_high: "
    f"its {CONFIDENCE:.0%} confidence interval (Student's t); gap_smallest to gap_largest: single "
    "seeds. A setting is best by its mean over the same seeds, on what is reported, of without_of "
    "or with_of settings: the best of more of them is ahead by luck, which favours a warmup. "
    "at_the_edge: where the best learning rate is the smallest or largest that was tried."
)


def compares_warmups(grid: Iterable[Axis]) -> bool:
    """Whether a grid is one of warmups and learning rates."""
    return {"warmup", "lr"} <= {axis.name for axis in grid}


def gap_table(experiment: Experiment, roles: Iterable[str]) -> pd.DataFrame:
    """Return one row per role of an experiment with a grid of warmups and learning rates.

    Args:
        experiment: Its runs; what has not ended, or failed, is counted as missing.
        roles: Those that get a row, in this order.

    Returns:
        ``experiment, role, metric``; ``seeds`` that ended at every setting; ``gap`` (positive
        where a warmup helps), its interval and extremes over the seeds, in the metric's units,
        and its ``reading`` in words, or what is lacking. At the best setting ``without_…`` a
        warmup and at the best ``with_…`` one: mean and standard deviation (of the sample) of the
        metric, learning rate, ``with_warmup`` (share of the steps), how many settings it is the
        best of, and on how many seeds it diverged. ``at_the_edge``; and how many ``runs`` there
        are in all, ``diverged`` and ``missing``.
    """
    measure = _measure(experiment)
    rows = [_row(experiment, role, measure) for role in roles]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _measure(experiment: Experiment) -> Measure:
    """The first that is logged by anything."""
    logged = {
        name for runs in experiment.runs.values() for run in runs for name in run.scalars.metrics
    }
    return next((one for one in MEASURES if one.metric in logged), MEASURES[-1])


def _row(experiment: Experiment, role: str, measure: Measure) -> dict[str, Any]:
    ended, diverged, failed, unfinished = (
        len(by_role.get(role, ()))
        for by_role in (
            *(experiment.runs, experiment.diverged),
            *(experiment.failed, experiment.unfinished),
        )
    )
    row: dict[str, Any] = {
        "experiment": experiment.name,
        "role": role,
        "metric": measure.metric,
        "runs": ended + diverged + failed + unfinished,
        "diverged": diverged,
        "missing": failed + unfinished,
    }
    try:
        grid = grid_of(experiment, role, measure)
    except CannotTell as reason:
        return row | {"reading": str(reason)}
    gap = grid.gap()
    if gap is None:
        return row | {"seeds": len(grid.seeds), "reading": "not run with a warmup and without"}
    interval = gap.interval
    known = len(grid.seeds) > 1  # of one the interval is everything
    edges = [
        way for way, best in (("without", gap.without), ("with", gap.with_one)) if best.at_the_edge
    ]
    return row | {
        "seeds": len(grid.seeds),
        "gap": interval.mean,
        "gap_low": interval.low if known else None,
        "gap_high": interval.high if known else None,
        "gap_smallest": min(gap.by_seed),
        "gap_largest": max(gap.by_seed),
        "reading": reading(gap, measure),
        **_best("without", gap.without, measure),
        **_best("with", gap.with_one, measure),
        "with_warmup": gap.with_one.setting.warmup,
        "at_the_edge": ", ".join(edges),
    }


def _best(way: str, best: Best, measure: Measure) -> dict[str, Any]:
    scores = pd.Series(best.costs) * (-1 if measure.highest_is_best else 1)
    scores = scores[scores.map(math.isfinite)]
    return {
        f"{way}_mean": scores.mean(),
        f"{way}_std": scores.std(),
        f"{way}_lr": best.setting.lr,
        f"{way}_of": best.settings,
        f"{way}_diverged": best.diverged,
    }
