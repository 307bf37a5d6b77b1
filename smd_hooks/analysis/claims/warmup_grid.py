"""Final scores over a grid of warmups and learning rates, and what a warmup gains, with its spread.

A warmup's gain, the gap, is the difference of two settings of a grid on the same seeds: the best
without a warmup and the best with one, each best on its mean over those very seeds. More settings
have a warmup than have none, and the best of more is ahead by luck: the gap leans towards a
warmup, by less than the spread of single seeds. That, and differences that nobody would pay for,
is what :attr:`Measure.negligible` is for.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice
from typing import NamedTuple

from ..reading.run import Run
from .claim import CannotTell, Experiment, seed_of
from .spread import Interval, mean_interval


@dataclass(frozen=True)
class Measure:
    """What runs are compared by.

    Attributes:
        metric: Its name in the logs.
        unit: Its unit, in words.
        negligible: A difference that is none, in that unit.
        decimals: How many are shown.
        highest_is_best: Whether training brings it up.
        may_be_absent: Whether a run that is worse than any value logs none, as COCO's metric
            does where a detector finds nothing.
    """

    metric: str
    unit: str
    negligible: float
    decimals: int
    highest_is_best: bool = False
    may_be_absent: bool = False

    def cost(self, run: Run) -> float | None:
        """Return a finished run's last value, signed so that less is better.

        Infinite where the value is not a number; None where it is not known.
        """
        value = run.scalars.metrics.get(self.metric)
        if value is None:
            return math.inf if self.may_be_absent else None
        if math.isnan(value):
            return math.inf
        return -value if self.highest_is_best else value


LOSS = Measure("val/loss", "nats per token", 0.01, 3)
ACCURACY = Measure("accuracy/top1", "points of accuracy", 0.5, 2, highest_is_best=True)
BOX_MAP = Measure("coco/bbox_mAP", "box mAP", 0.005, 3, highest_is_best=True, may_be_absent=True)
MEASURES = (BOX_MAP, ACCURACY, LOSS)
"""The first that an experiment's runs log is what they are compared by: images have a loss, too."""

EXCHANGES = 1023
"""At most so many wrong grids: all those of ten seeds."""


class Setting(NamedTuple):
    """A place in the grid.

    Attributes:
        warmup: Share of the steps.
        lr: Learning rate.
    """

    warmup: float
    lr: float


@dataclass(frozen=True)
class Best:
    """The best of some settings.

    Attributes:
        setting: Which one.
        costs: What it came to on each seed; infinite where a run diverged.
        settings: How many it was chosen from.
        at_the_edge: Whether its learning rate is the smallest or largest of several: beyond, there
            might be a better one.
    """

    setting: Setting
    costs: tuple[float, ...]
    settings: int
    at_the_edge: bool

    @property
    def diverged(self) -> int:
        """Seeds on which it diverged."""
        return sum(map(math.isinf, self.costs))


@dataclass(frozen=True)
class Gap:
    """What a warmup gains: positive where the best setting is one with a warmup.

    Attributes:
        without: The best without a warmup.
        with_one: The best with one.
    """

    without: Best
    with_one: Best

    @cached_property
    def by_seed(self) -> tuple[float, ...]:
        """On each seed, in the metric's units."""
        return paired(self.without.costs, self.with_one.costs)

    @cached_property
    def interval(self) -> Interval:
        """Its mean, and how well the seeds know it."""
        return interval_of(self.by_seed)

    def exceeds(self, limit: float) -> bool | None:
        """Whether it is above a limit; None if its interval, or the grid, leaves that open."""
        return unless_beyond(exceeds(self.interval, limit), self.without, self.with_one)


@dataclass(frozen=True)
class Grid:
    """What one optimizer came to at each setting.

    Attributes:
        costs: By setting, on each seed: the metric, signed so that less is better.
        seeds: Those that ran at every setting.
    """

    costs: Mapping[Setting, tuple[float, ...]]
    seeds: tuple[int, ...]

    @property
    def rates(self) -> list[float]:
        """Its learning rates."""
        return sorted({setting.lr for setting in self.costs})

    def best(self, among: Collection[Setting] | None = None) -> Best:
        """Return the best of some settings; of all, if none are given.

        That is, the smallest mean of those with the fewest diverged runs.
        """
        found = sorted(self.costs if among is None else among)
        setting = min(found, key=lambda place: _rank(self.costs[place]))
        rates = [place.lr for place in found]
        edge = min(rates) < max(rates) and setting.lr in (min(rates), max(rates))
        return Best(setting, self.costs[setting], len(found), edge)

    def gap(self, lr: float | None = None) -> Gap | None:
        """Return what a warmup gains; at one learning rate, if one is given.

        None where the grid has not both ways.
        """
        at = [place for place in self.costs if lr in (None, place.lr)]
        without, with_one = ([p for p in at if (p.warmup > 0) == way] for way in (False, True))
        return Gap(self.best(without), self.best(with_one)) if without and with_one else None

    def exchanged(self, warmup: float) -> Iterator[Grid]:
        """Yield the control: the same scores, with a warmup exchanged for none on some seeds.

        On each set of seeds but the empty one, up to :data:`EXCHANGES` of them, and what has
        another warmup has the scores without one there, too. What a criterion goes by that still
        tells a benefit is not the warmup.

        Args:
            warmup: Share of the steps; what has no such run, or none without, stays.
        """
        numbers = range(len(self.seeds))
        sets = (some for size in numbers for some in combinations(numbers, size + 1))
        for wrong in islice(sets, EXCHANGES):
            costs = {}
            for place, own in self.costs.items():
                twin = place._replace(warmup=0.0 if place.warmup else warmup)
                theirs = self.costs.get(twin, own)
                costs[place] = tuple((theirs if i in wrong else own)[i] for i in numbers)
            yield Grid(costs, self.seeds)


def _rank(costs: Sequence[float]) -> tuple[int, float]:
    ended = [cost for cost in costs if not math.isinf(cost)]
    return len(costs) - len(ended), sum(ended) / len(ended) if ended else math.inf


def grid_of(experiment: Experiment, role: str, measure: Measure) -> Grid:
    """Collect what an optimizer came to.

    Only seeds that ended at every setting count: a mean over others would compare seeds. A run
    that diverged is worse than all others, whether it went on to its end or not.

    Raises:
        CannotTell: A run does not say its place in the grid or logged no metric, two have the
            same place, or no seed ran at every setting.
    """
    found: dict[Setting, dict[int, float]] = defaultdict(dict)
    ended = [(run, measure.cost(run)) for run in experiment.runs.get(role, ())]
    ended += [(run, math.inf) for run in experiment.diverged.get(role, ())]
    for run, cost in ended:
        options = run.planned.options if run.planned else {}
        warmup, lr, seed = options.get("warmup"), options.get("lr"), seed_of(run)
        if not isinstance(warmup, int | float) or not isinstance(lr, int | float) or seed is None:
            raise CannotTell(f"{role}: a run does not say its warmup, lr and seed")
        if cost is None:
            raise CannotTell(f"{role}: a run logged no {measure.metric}")
        at = found[Setting(float(warmup), float(lr))]
        if seed in at:
            raise CannotTell(f"{role}: two runs at warmup {warmup:g}, lr {lr:g}, seed {seed}")
        at[seed] = cost
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in found.values()))) if found else []
    if not seeds:
        raise CannotTell(f"{role}: no seed ran at every setting")
    costs = {place: tuple(by_seed[s] for s in seeds) for place, by_seed in found.items()}
    return Grid(costs, tuple(seeds))


def paired(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
    """Return a − b seed by seed; none where both are the same infinity."""
    return tuple(0.0 if x == y else x - y for x, y in zip(a, b, strict=True))


def interval_of(differences: Sequence[float]) -> Interval:
    """Return the mean and Student's interval of differences that may be infinite.

    A seed that diverged one way lost at least as much by it as any that did not: the end of the
    interval that is finite is the one that its counting as much gives. Where all did, nothing is
    in doubt; where some did either way, everything is.
    """
    finite = [x for x in differences if math.isfinite(x)]
    infinite = {x for x in differences if not math.isfinite(x)}
    if not infinite:
        return mean_interval(differences)
    if len(infinite) > 1:
        return Interval(math.nan, -math.inf, math.inf)
    (mean,) = infinite
    if not finite:
        return Interval(mean, mean, mean)
    most = max(finite) if mean > 0 else min(finite)
    least = mean_interval([x if math.isfinite(x) else most for x in differences])
    return Interval(mean, *((least.low, mean) if mean > 0 else (mean, least.high)))


def unless_beyond(above: bool | None, worse: Best, better: Best) -> bool | None:
    """Return what an interval says of how much worse one way is, if a larger grid cannot undo it.

    More learning rates can only make each way's best better: that ``worse`` is, by as much, stays
    open while its best is at the edge; that it is not, while the other's is.
    """
    beyond = {True: worse, False: better}
    return None if above is not None and beyond[above].at_the_edge else above


def exceeds(interval: Interval, limit: float) -> bool | None:
    """Whether a mean is above a limit: as its whole interval says; None if that has both sides."""
    if interval.low > limit:
        return True
    return False if interval.high <= limit else None
