"""From experiments to runs: role × option × seed, each with a name and a config."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from benchmarks.engines.training import Training
from benchmarks.errors import UsageError
from benchmarks.replicas.targets import task_of
from smd_hooks.planning.epochs import processes_of
from smd_hooks.records import PlannedRun

from .sources import Source
from .suite import Axis, Experiment, Tuning

TUNING_ROLE = "tune-"
"""What the roles of tuning runs begin with, so that no claim takes them for its own."""


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        experiment: The experiment's name.
        role: What it is in that experiment.
        seed: Its seed.
        source: What it is made of.
        options: What the sweep sets, by short name.
        settings: The same by dotted path.
        explores: Whether it tries values that may well diverge: that is a result, then.
    """

    experiment: str
    role: str
    seed: int
    source: Source
    options: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)
    explores: bool = False

    @property
    def name(self) -> str:
        """Its folder's name."""
        options = [f"{name}{value:g}" for name, value in self.options.items()]
        return "-".join([self.experiment, self.role, *options, f"seed{self.seed}"])

    @property
    def config(self) -> Config:
        """The config that is trained."""
        config = deepcopy(self.source.config)
        config.merge_from_dict(dict(self.settings))
        config.randomness = {**config.get("randomness", {}), "seed": self.seed}
        return config

    @property
    def task(self) -> str:
        """What it trains: ``"classification"``, ``"detection"`` or ``"language"``."""
        return task_of(self.source.config)

    @property
    def steps(self) -> tuple[bool, int]:
        """How long it takes, to be compared: detection before all others, then iterations."""
        loop = self.source.config.train_cfg
        return self.task == "detection", loop.get("max_iters") or loop.get("max_epochs") or 0

    @property
    def iterations(self) -> int:
        """Iterations that its config plans; 0 where it counts epochs."""
        return int(self.source.config.train_cfg.get("max_iters") or 0)

    @property
    def processes(self) -> int:
        """How many train it together: at full size as many as its learning rate is made for."""
        return 1 if self.source.is_replica else processes_of(self.config)

    @property
    def launched_on(self) -> str:
        """Say in words what it is made for."""
        number, loader = self.processes, self.config.train_dataloader
        examples = "sequences" if self.task == "language" else "images"
        return f"{number} GPU{'s' if number > 1 else ''} × {loader.get('batch_size')} {examples}"

    def training(self, root: Path, overrides: Sequence[str], resume: bool) -> Training:
        """Make a training of it.

        Args:
            root: Folder of the sweep.
            overrides: What the user sets in every config.
            resume: Whether it goes on from its latest checkpoint.
        """
        options = ["--resume"] if resume else []
        path = Path(self.source.path)
        if self.source.is_replica:
            path = self._own_config(root)
        else:
            settings = [*overrides, *(f"{key}={value!r}" for key, value in self.settings.items())]
            options += ["--seed", str(self.seed)]
            options += ["--cfg-options", *settings] if settings else []
        planned = PlannedRun(
            "",
            experiment=self.experiment,
            role=self.role,
            scale=self.source.scale,
            options=self.options,
        )
        training = Training(
            self.name,
            path.as_posix(),
            root / self.name,
            options,
            planned,
            self.processes,
            self.iterations,
        )
        training.known = training.newest_launch if resume else ""
        return training

    def write_config(self, root: Path) -> None:
        """Write a replica's config, which is in no file yet, to ``<root>/configs``."""
        if self.source.is_replica:
            path = self._own_config(root)
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{os.getpid()}-{path.name}")
            self.config.dump(beside)
            beside.replace(path)  # whole: a run of another sweep may just be reading it

    def _own_config(self, root: Path) -> Path:
        return root / "configs" / f"{self.name}.py"


def expand(
    experiment: Experiment, sources: Mapping[str, Source], seeds: Sequence[int]
) -> list[SweepRun]:
    """Return an experiment's runs, but for those that have to wait for its tuning.

    Args:
        experiment: What is run.
        sources: Each role's config. Roles that the experiment does not have are controls of
            a replica; they are run on the first seed.
        seeds: The seeds.
    """
    if experiment.tuning:
        return _tuning_runs(experiment.name, experiment.tuning, sources)
    runs = []
    for role, source in sources.items():
        axes = [_values(axis, source, f"{experiment.name}, {role}") for axis in experiment.grid]
        for values in itertools.product(*axes):
            chosen = list(zip(experiment.grid, values, strict=True))
            options = {axis.name: value for axis, value in chosen}
            settings = {axis.key: value for axis, value in chosen}
            for seed in seeds if role in experiment.configs else seeds[:1]:
                place = experiment.name, role, seed
                runs.append(SweepRun(*place, source, options, settings, explores=bool(options)))
    return runs


def _values(axis: Axis, source: Source, where: str) -> Sequence[float]:
    if not axis.factors:
        return axis.values
    own = own_value(source, axis, where)
    return [float(f"{own * factor:.6g}") for factor in axis.factors]


def _tuning_runs(name: str, tuning: Tuning, sources: Mapping[str, Source]) -> list[SweepRun]:
    runs = []
    for role, source in sources.items():
        own = own_value(source, tuning, f"{name}, {role}")
        for factor in tuning.factors:
            tried = _tuned(name, TUNING_ROLE + role, tuning.seed, source, tuning, own * factor)
            runs.append(replace(tried, explores=True))
    return runs


def tuned_runs(
    experiment: Experiment,
    sources: Mapping[str, Source],
    seeds: Sequence[int],
    chosen: Mapping[str, float],
) -> list[SweepRun]:
    """Return the runs of a tuned experiment, each role at the value that was chosen for it.

    Args:
        experiment: One that has a tuning.
        sources: Each role's config.
        seeds: The seeds.
        chosen: Each role's value; roles without one are not run.
    """
    if experiment.tuning is None:
        return []
    return [
        _tuned(experiment.name, role, seed, sources[role], experiment.tuning, value)
        for role, value in chosen.items()
        for seed in seeds
    ]


def own_value(source: Source, option: Tuning | Axis, where: str) -> float:
    """Return what a config itself sets an option to.

    Raises:
        UsageError: It sets no number there.
    """
    value: Any = source.config.to_dict()
    for key in option.key.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{where}: {source.path} sets no number '{option.key}' to be multiplied")
    return float(value)


def _tuned(
    experiment: str, role: str, seed: int, source: Source, tuning: Tuning, value: float
) -> SweepRun:
    return SweepRun(experiment, role, seed, source, {tuning.name: value}, {tuning.key: value})
