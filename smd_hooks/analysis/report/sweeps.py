"""Grids of learning rates: how a suite's runs ended, by learning rate and one other option."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...records.foreign_files import number_in
from ..claims.claim import Experiment
from ..claims.ledger import experiments
from ..reading.run import Run
from ..reading.scalars import METRICS

RATE = "lr"
"""What the option is called that is the horizontal axis."""
SPAN = 2.0
"""Values are in range up to so many times the way from the best to the middle one."""
MARGIN = 0.06
"""Of the range, free at both ends."""
ASIDE = 0.85
"""Of the way to the next learning rate, taken up by what stands at the edge side by side."""


@dataclass(frozen=True)
class Setting:
    """One place of a grid.

    Attributes:
        lr: Learning rate.
        value: Value of the other option.
        finals: The metric's last value in each run that finished with a number, by seed.
        lost: How many of its runs diverged, or finished without a number: a detector that finds
            nothing logs none.
        runs: Those that finished with a number, by seed.
    """

    lr: float
    value: float
    finals: tuple[float, ...]
    lost: int
    runs: tuple[Run, ...]

    @property
    def mean(self) -> float:
        """Mean of the seeds; NaN if one is lost: what the others did is then no result."""
        return math.nan if self.lost else float(np.mean(self.finals))


@dataclass(frozen=True)
class Sweep:
    """An experiment whose runs differ in their learning rate and one other option.

    Attributes:
        experiment: As the suite calls it.
        scale: What the replica says of its scale; empty at full size.
        metric: What it is judged by: of the table's metrics the one that most runs have.
        option: Name of the option beside the learning rate, such as ``warmup``.
        roles: Each role's settings, by the option's value, then by learning rate.
        left_out: Runs of the grid that have not ended, or failed and did not diverge.
    """

    experiment: str
    scale: str
    metric: str
    option: str
    roles: Mapping[str, Sequence[Setting]]
    left_out: int

    @property
    def lowest_is_best(self) -> bool:
        """Whether the metric is a loss."""
        return "loss" in self.metric

    @property
    def values(self) -> list[float]:
        """Values of the option in any role, ascending."""
        return sorted({s.value for settings in self.roles.values() for s in settings})

    def best(self, settings: Iterable[Setting]) -> Setting | None:
        """Return the setting of the best mean, the first of several; None if all lost a run."""
        known = [s for s in settings if not s.lost]
        sign = 1 if self.lowest_is_best else -1
        return min(known, key=lambda s: sign * s.mean, default=None)

    def best_pair(self, role: str) -> tuple[Setting | None, Setting | None]:
        """Return a role's best setting at the option's smallest value, and its best above it."""
        lowest, settings = self.values[0], self.roles[role]
        without = [s for s in settings if s.value == lowest]
        return self.best(without), self.best(s for s in settings if s.value > lowest)

    @property
    def rates(self) -> list[float]:
        """Learning rates of any role, ascending."""
        return sorted({s.lr for settings in self.roles.values() for s in settings})

    def edge_places(self, role: str) -> dict[tuple[float, float], float]:
        """Return where those settings stand that no place in range is left for, at the edge.

        That is, by value and learning rate, a place on the axis of learning rates: several of
        one learning rate stand side by side around it.
        """
        low, high = self.limits
        out = [s for s in self.roles[role] if s.lost or not low <= s.mean <= high]
        ratios = [b / a for a, b in pairwise(self.rates)]
        step = min([*ratios, 10.0]) ** (ASIDE / len(self.values))
        places = {}
        for lr in self.rates:
            there = [s.value for s in out if s.lr == lr]
            for i, value in enumerate(there):
                places[value, lr] = lr * step ** (i - (len(there) - 1) / 2)
        return places

    @property
    def limits(self) -> tuple[float, float]:
        """Limits of an axis that all roles share.

        From the best value of a run to the worst; but no further than :data:`SPAN` times the
        way from there to the median of all settings: a learning rate that ruins the training
        must not flatten the differences between those that do not.
        """
        settings = [s for role in self.roles.values() for s in role if not s.lost]
        finals = [x for s in settings for x in s.finals]
        if not finals:
            return 0.0, 1.0
        sign = 1 if self.lowest_is_best else -1
        ordered = sorted(sign * x for x in finals)
        best, worst = ordered[0], ordered[-1]
        middle = float(np.median([sign * s.mean for s in settings]))
        end = min(worst, best + SPAN * (middle - best)) if middle > best else worst
        margin = MARGIN * (end - best) or MARGIN * abs(end) or MARGIN
        low, high = sorted((sign * (best - margin), sign * (end + margin)))
        return low, high


def find_sweeps(runs: Sequence[Run]) -> list[Sweep]:
    """Find the grids of learning rates among the experiments of suites.

    A run is part of one if its suite set it two numbers, one of them called ``lr``.

    Args:
        runs: What :func:`smd_hooks.analysis.load_runs` returned.

    Returns:
        One sweep per experiment, scale and other option; none without two values of it, or
        without a run that logged one of the table's metrics.
    """
    found = []
    for experiment in experiments(runs):
        places = [_place(run) for run in _runs(experiment.runs)]
        options = {place[0] for place in places if place is not None}
        found += [_sweep(experiment, option) for option in sorted(options)]
    return [sweep for sweep in found if sweep is not None and len(sweep.values) > 1]


def _runs(by_role: Mapping[str, Sequence[Run]]) -> list[Run]:
    return [run for runs in by_role.values() for run in runs]


def _place(run: Run) -> tuple[str, float, float] | None:
    """The option beside the learning rate, its value, and that rate; None for what is no grid."""
    options = run.planned.options if run.planned else {}
    numbers = {name: number_in(value) for name, value in options.items()}
    lr = numbers.pop(RATE, None)
    if lr is None or not 0 < lr < math.inf or len(numbers) != 1:
        return None
    ((option, value),) = numbers.items()
    return None if value is None or not math.isfinite(value) else (option, value, lr)


def _sweep(experiment: Experiment, option: str) -> Sweep | None:
    def members(by_role: Mapping[str, Sequence[Run]]) -> dict[str, list[Run]]:
        return {
            role: [run for run in runs if (place := _place(run)) and place[0] == option]
            for role, runs in by_role.items()
        }

    finished, diverged = members(experiment.runs), members(experiment.diverged)
    logged = Counter(name for run in _runs(finished) for name in run.scalars.metrics)
    if not logged:
        return None
    metric = max(METRICS, key=lambda name: logged[name])  # of several the table's first
    roles = {
        role: settings
        for role in sorted({*finished, *diverged})
        if (settings := _settings([*finished.get(role, []), *diverged.get(role, [])], metric))
    }
    others = [*_runs(members(experiment.failed)), *_runs(members(experiment.unfinished))]
    return Sweep(experiment.name, experiment.scale, metric, option, roles, len(others))


def _settings(runs: Sequence[Run], metric: str) -> list[Setting]:
    """Settings of a role by the option's value, then by learning rate."""
    together: dict[tuple[float, float], list[Run]] = defaultdict(list)
    for run in runs:
        if (place := _place(run)) is not None:
            together[place[1:]].append(run)
    settings = []
    for (value, lr), members in sorted(together.items()):
        ended = [(run, run.scalars.metrics.get(metric, math.nan)) for run in members]
        # one that diverged may have been validated before
        ended = [(run, x) for run, x in ended if run.status == "finished" and math.isfinite(x)]
        whole, finals = zip(*ended, strict=True) if ended else ((), ())
        settings.append(Setting(lr, value, finals, len(members) - len(ended), whole))
    return settings


def by_value(settings: Iterable[Setting]) -> dict[float, list[Setting]]:
    """Return settings by the option's value, each list by learning rate."""
    lines: dict[float, list[Setting]] = defaultdict(list)
    for setting in settings:
        lines[setting.value].append(setting)
    return dict(lines)
