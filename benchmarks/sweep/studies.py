"""The experiments of a sweep that can be run, each with its configs; and why others cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.errors import UsageError
from benchmarks.replicas.targets import task_of
from smd_hooks.analysis import Run

from .plan import TUNING_ROLE, SweepRun, expand, tuned_runs
from .sources import Source, find_targets, full_size, replicas
from .suite import Experiment, Suite
from .tuning import Choice, budget, choose


@dataclass(frozen=True)
class Study:
    """An experiment that is run: at full size, or as a replica.

    Attributes:
        experiment: What the suite says of it.
        sources: Each role's config, a replica's controls among them.
        seeds: Its seeds.
    """

    experiment: Experiment
    sources: Mapping[str, Source]
    seeds: Sequence[int]

    @property
    def scales(self) -> list[str]:
        """What replicas say of their scale, roles that say the same together."""
        of: dict[str, list[str]] = {}
        for role, source in self.sources.items():
            if source.scale:
                of.setdefault(source.scale, []).append(role)
        return [f"{', '.join(roles)}: {text}" for text, roles in of.items()]

    def runs(self, there: Mapping[str, Run]) -> list[SweepRun]:
        """Return its runs; those that wait for tuning as soon as that is over.

        Args:
            there: What is on disk, by name.
        """
        first = expand(self.experiment, self.sources, self.seeds)
        values = {role: choice.value for role, choice in self.choices(there).items()}
        return first + tuned_runs(self.experiment, self.sources, self.seeds, values)

    def choices(self, there: Mapping[str, Run]) -> dict[str, Choice]:
        """Return what tuning found, by role: of those whose tuning is over."""
        tuning = self.experiment.tuning
        if tuning is None:
            return {}
        trials = expand(self.experiment, self.sources, self.seeds)
        found = {
            role: choose(tuning, [t for t in trials if t.role == TUNING_ROLE + role], there)
            for role in self.sources
        }
        return {role: choice for role, choice in found.items() if choice is not None}

    def untuned(self, there: Mapping[str, Run]) -> list[str]:
        """Return the roles whose tuning is not over, or found nothing."""
        chosen = self.choices(there)
        return [role for role in self.sources if self.experiment.tuning and role not in chosen]

    def waiting(self, there: Mapping[str, Run]) -> list[str]:
        """Say which roles cannot be run before they are tuned."""
        tuning, roles = self.experiment.tuning, self.untuned(there)
        if tuning is None or not roles:
            return []
        seeds = " ".join(map(str, self.seeds))
        return [f"after tuning ({budget(tuning)}): {', '.join(roles)}, on seeds {seeds}"]


def studies_of(
    suite: Suite,
    only: Sequence[str],
    seeds: Sequence[int],
    replica: Sequence[Path] | None,
    overrides: Sequence[str],
) -> tuple[list[Study], dict[str, str]]:
    """Choose what is run of a suite.

    Args:
        suite: The suite.
        only: Names of the experiments that are asked for; none for all.
        seeds: In place of the suite's own; none for those.
        replica: None for full size; the data sets of replicas, or none for the demo's.
        overrides: What the user sets in every config, as ``a.b=c``.

    Returns:
        What is run, and why the rest is not, by experiment.

    Raises:
        UsageError: An experiment is asked for that the suite does not have, a config does
            not load, or a data set is none.
    """
    known = [experiment.name for experiment in suite.experiments]
    for name in only:
        if name not in known:
            raise UsageError(f"--only {name}: {suite.name} has {', '.join(known)}")
    targets = None if replica is None else find_targets(replica)
    studies, not_run = [], {}
    for experiment in suite.experiments:
        part = experiment.replica
        if only and experiment.name not in only:
            not_run[experiment.name] = "not asked for"
        elif targets is not None and isinstance(part, str):
            not_run[experiment.name] = f"no replica: {part}"
        else:
            sources = full_size(experiment, overrides if targets is None else ())
            task = task_of(next(iter(sources.values())).config)
            if targets is not None and task not in targets:
                not_run[experiment.name] = f"no data set for {task} is given"
                continue
            own = experiment.seeds
            if targets is not None and not isinstance(part, str):
                own, experiment = part.seeds, replace(experiment, grid=part.grid)
                sources = replicas(experiment, part, sources, targets[task], overrides)
            studies.append(Study(experiment, sources, seeds or own))
    return studies, not_run
