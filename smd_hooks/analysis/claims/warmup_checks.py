"""Judges grids of warmups and learning rates, and says in a line what it went by.

All go by the confidence interval of a difference over seeds. An interval above what is negligible
is a benefit, one that does not reach above it is none, and one with both sides decides nothing:
neither a claim that a warmup is needed nor one that it is not can hold, or fail, by noise. Nor by
where the grid ends: what a learning rate beyond it could undo is not decided, either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..reading.run import Run
from .claim import CannotTell, Experiment, Finding
from .first_update import SETTLED
from .spread import CONFIDENCE, Interval
from .warmup_grid import (
    Best,
    Gap,
    Grid,
    Measure,
    exceeds,
    grid_of,
    interval_of,
    paired,
    unless_beyond,
)

SEEDS = 3
"""Fewest that an interval is taken of."""
LARGE = 2.0
"""First update's norm, over what is usual later, from which on it is large."""
Check = Callable[[Experiment], Finding]


def benefits(measure: Measure, expected: Mapping[str, bool]) -> Check:
    """Return a check of which roles benefit from a warmup, and which do not."""

    def check(experiment: Experiment) -> Finding:
        gaps = {role: _gap(experiment, role, measure) for role in expected}
        found = {role: gap.exceeds(measure.negligible) for role, gap in gaps.items()}
        told = "; ".join(_say_gap(role, gap, measure) for role, gap in gaps.items())
        as_expected = (f if f is None else f == expected[role] for role, f in found.items())
        return Finding(told, _all(as_expected))

    return check


def benefits_everywhere(role: str, measure: Measure) -> Check:
    """Return a check that a role benefits at each learning rate."""

    def check(experiment: Experiment) -> Finding:
        grid = _grid(experiment, role, measure)
        gaps = {lr: gap for lr in grid.rates if (gap := grid.gap(lr))}
        # where runs diverge either way there is nothing to compare
        lost = [lr for lr, g in gaps.items() if g.without.diverged and g.with_one.diverged]
        judged = {lr: gap for lr, gap in gaps.items() if lr not in lost}
        if not judged:
            raise CannotTell(f"{role}: at no learning rate did runs end with and without a warmup")
        told = [f"lr {lr:.3g}: {_say_reading(gap, measure)}" for lr, gap in judged.items()]
        told += [f"lr {lr:.3g}: diverged with a warmup and without" for lr in lost]
        verdicts = (gap.exceeds(measure.negligible) for gap in judged.values())
        return Finding("; ".join(told), _all(verdicts))

    return check


def benefits_less(role: str, than: str, measure: Measure) -> Check:
    """Return a check that one role gains less than another, on the same seeds."""

    def check(experiment: Experiment) -> Finding:
        _same_seeds(experiment, than, role, measure)
        gaps = {name: _gap(experiment, name, measure) for name in (than, role)}
        both = zip(gaps[than].by_seed, gaps[role].by_seed, strict=True)
        if any(math.isinf(x) and x == y for x, y in both):
            raise CannotTell(f"{than} and {role}: one seed diverged in the same way of both")
        less = paired(gaps[than].by_seed, gaps[role].by_seed)
        interval = interval_of(less)
        above = exceeds(interval, measure.negligible)
        holds = unless_beyond(above, gaps[than].without, gaps[than].with_one)
        holds = unless_beyond(holds, gaps[role].with_one, gaps[role].without)
        left = _left_open(above, holds, less)
        told = [f"{than} − {role}: {say(interval, less, measure)}{left}"]
        told += [_say_gap(name, gap, measure) for name, gap in gaps.items()]
        return Finding("; ".join(told), holds)

    return check


def much_worse(role: str, than: str, measure: Measure, much: float) -> Check:
    """Return a check that one role is worse than another, each at its best setting of all."""

    def check(experiment: Experiment) -> Finding:
        pair = [grid.best() for grid in _same_seeds(experiment, role, than, measure)]
        if all(best.diverged for best in pair):
            raise CannotTell(f"{role} and {than}: at every setting a run diverged")
        worse = paired(*(best.costs for best in pair))
        interval = interval_of(worse)
        above = exceeds(interval, much)
        holds = unless_beyond(above, *pair)
        left = _left_open(above, holds, worse)
        ways = " against ".join(_say_best(best) for best in pair)
        told = f"{say(interval, worse, measure)}{left}; {ways}"
        return Finding(told, holds)

    return check


def benefit_is_lost(role: str, measure: Measure) -> Check:
    """Return the control: with a warmup exchanged for none on some seeds, its benefit is gone."""

    def check(experiment: Experiment) -> Finding:
        right, grid = _gap(experiment, role, measure), _grid(experiment, role, measure)
        exchanged = [one.gap() for one in grid.exchanged(right.with_one.setting.warmup)]
        told_so = [gap for gap in exchanged if gap and gap.exceeds(measure.negligible)]
        told = f"{len(told_so)} of {len(exchanged)} wrong ways show a benefit; the right one "
        told += _say_reading(right, measure)
        if len(told_so) > (1 - CONFIDENCE) * len(exchanged):
            return Finding(told, False)
        if right.exceeds(measure.negligible):
            return Finding(told, True)
        raise CannotTell(f"there is no clear benefit to be lost: {told}")

    return check


def starts(role: str, ratio: Callable[[Run], float | None], *, large: bool) -> Check:
    """Return a check that a role's update is large without a warmup, or that it is not.

    Args:
        role: The role.
        ratio: Of an update to others, such as :func:`.first_update.first_update`.
        large: What is expected of it.
    """

    def check(experiment: Experiment) -> Finding:
        without = [
            run
            for run in experiment.runs[role]
            if run.planned is not None and run.planned.options.get("warmup") == 0
        ]
        known = Experiment(experiment.name, experiment.scale, {role: without})
        ratios = [found for found in known.facts(role, ratio) if found is not None]
        if not ratios:
            raise CannotTell(
                f"{role}: no run without a warmup has matrices measured from its first step on, "
                f"at a constant lr for {3 * SETTLED} steps"
            )
        told = " ".join(f"{found:.2f}" for found in ratios)
        holds = all((found >= LARGE) == large for found in ratios)
        return Finding(f"{role}: {told} times the RMS", holds)

    return check


def say(interval: Interval, by_seed: Iterable[float], measure: Measure) -> str:
    """Say a difference: its mean, the interval of that, and what it is on each seed."""

    def of(value: float) -> str:
        return f"{value:+.{measure.decimals}f}"

    each = " ".join(map(of, by_seed))
    return f"{of(interval.mean)} ({of(interval.low)} to {of(interval.high)}; seeds {each})"


def reading(gap: Gap, measure: Measure) -> str:
    """Say in words what a gap says of a warmup."""
    above = exceeds(gap.interval, measure.negligible)
    holds = gap.exceeds(measure.negligible)
    if holds is None:
        return _left_open(above, holds, gap.by_seed).removeprefix(", ")
    if holds:
        return "a benefit"
    return "harm" if gap.interval.high < -measure.negligible else "no benefit"


def _left_open(above: bool | None, holds: bool | None, by_seed: Sequence[float]) -> str:
    """Say what leaves a verdict open: the seeds, or learning rates beyond the grid."""
    if holds is not None:
        return ""
    if above is not None:
        return ", not decided: a best lr is at the edge of the grid"
    return f", not decided by {len(by_seed)} seed{'s' * (len(by_seed) > 1)}"


def _say_reading(gap: Gap, measure: Measure) -> str:
    return f"{say(gap.interval, gap.by_seed, measure)}, {reading(gap, measure)}"


def _say_gap(role: str, gap: Gap, measure: Measure) -> str:
    ways = " against ".join(map(_say_best, (gap.without, gap.with_one)))
    return f"{role}: {_say_reading(gap, measure)}; {ways}"


def _say_best(best: Best) -> str:
    warmup, lr = best.setting
    way = f"warmup {warmup:.3g}" if warmup else "no warmup"
    edge = " at the edge" if best.at_the_edge else ""
    lost = f", {best.diverged} of {len(best.costs)} diverged" if best.diverged else ""
    return f"{way}, lr {lr:.3g}{edge} (best of {best.settings}{lost})"


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    """Whether all hold: one that fails is enough, and one that is not decided leaves it open."""
    told = list(verdicts)
    if False in told:
        return False
    return None if None in told else True


def _grid(experiment: Experiment, role: str, measure: Measure) -> Grid:
    grid = grid_of(experiment, role, measure)
    if len(grid.seeds) < SEEDS:
        raise CannotTell(f"{role}: {len(grid.seeds)} of {SEEDS} seeds ran at every setting")
    return grid


def _same_seeds(experiment: Experiment, a: str, b: str, measure: Measure) -> tuple[Grid, Grid]:
    pair = _grid(experiment, a, measure), _grid(experiment, b, measure)
    if pair[0].seeds != pair[1].seeds:
        raise CannotTell(f"{a} and {b} ran on other seeds")
    return pair


def _gap(experiment: Experiment, role: str, measure: Measure) -> Gap:
    gap = _grid(experiment, role, measure).gap()
    if gap is None:
        raise CannotTell(f"{role}: the grid has not both runs without a warmup and with one")
    if gap.without.diverged and gap.with_one.diverged:
        raise CannotTell(f"{role}: at every setting, with a warmup and without, a run diverged")
    return gap
