"""What a suite file says: experiments as plain data, checked before anything is trained."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from benchmarks.errors import UsageError
from benchmarks.replicas import VALIDATIONS
from smd_hooks.analysis.claims.ledger import CLAIMS
from smd_hooks.analysis.reading.scalars import METRICS

from .entry import Entry

Options = Mapping[str, Any]
"""What is set in a config, by dotted path, as ``--cfg-options`` does."""


@dataclass(frozen=True)
class Axis:
    """One option of a grid.

    Attributes:
        name: Its short name, in the names of runs.
        key: What it sets in the config, by dotted path.
        values: What it is set to, one run each.
        factors: In place of them, what each config's own value is multiplied by.
    """

    name: str
    key: str
    values: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Tuning:
    """One option that is chosen for each role by runs of their own.

    Attributes:
        name: Its short name.
        key: What it sets in the config.
        factors: What the config's own value is multiplied by, one run each.
        seed: The seed of these runs; none of the experiment's.
        metric: By whose last value the best is chosen.
    """

    name: str
    key: str
    factors: tuple[float, ...]
    seed: int
    metric: str

    @property
    def lowest_is_best(self) -> bool:
        """Whether the metric is one that training brings down."""
        return self.metric.endswith("loss")


@dataclass(frozen=True)
class Control:
    """A role that only replicas have: something wrong on purpose.

    Attributes:
        of: The role that it is, but for its options.
        options: What is set in that role's replica.
    """

    of: str
    options: Options


@dataclass(frozen=True)
class ReplicaPart:
    """How an experiment is scaled down.

    Attributes:
        seeds: Its seeds.
        longest: Stages at a constant learning rate are cut to so many relaxation times.
        fastest: The time scale's factor at most: a grid may have larger learning rates, which
            relax faster, than the configs.
        validations: How often a run is validated, about, besides around its drops.
        options: What is set in the replicas, by role; of the role ``""`` in all of them.
        embedded_options: The same where the model is one of the small ones.
        controls: Roles beside the experiment's, on the first seed.
        grid: In place of the experiment's: fewer of each option's values, or factors.
    """

    seeds: tuple[int, ...]
    longest: float
    fastest: float
    validations: int
    options: Mapping[str, Options]
    embedded_options: Mapping[str, Options]
    controls: Mapping[str, Control]
    grid: tuple[Axis, ...]


@dataclass(frozen=True)
class Experiment:
    """One experiment of a paper.

    Attributes:
        name: Its id.
        figure: What of the paper it reproduces.
        configs: The config of each role.
        seeds: Each role's seeds.
        claims: Names of the claims that it answers.
        grid: Options that every role is run at, each value with every other's.
        tuning: An option that is chosen for each role; None for as configured.
        replica: How it is scaled down; or why it cannot be, in words.
    """

    name: str
    figure: str
    configs: Mapping[str, str]
    seeds: tuple[int, ...]
    claims: tuple[str, ...]
    grid: tuple[Axis, ...]
    tuning: Tuning | None
    replica: ReplicaPart | str


@dataclass(frozen=True)
class Suite:
    """A suite: its name, the paper in words, and its experiments."""

    name: str
    paper: str
    experiments: tuple[Experiment, ...]


def load_suite(path: Path) -> Suite:
    """Read a suite file, an MMEngine config of plain data.

    Raises:
        UsageError: It does not exist or load, or one of its entries is not what it must be.
    """
    if not path.is_file():
        raise UsageError(f"suite {path} does not exist; the suites are in suites/")
    try:
        content = Config.fromfile(path).to_dict()
    except (Exception, SystemExit) as error:  # it is Python: anything can go wrong in it
        line = " ".join(str(error).split())
        raise UsageError(f"suite {path} does not load: {type(error).__name__}: {line}") from error
    public = {key: value for key, value in content.items() if not key.startswith("_")}
    entry = Entry(public, f"suite {path}")
    suite = Suite(
        path.stem,
        entry.take("paper", str),
        tuple(_experiment(one, f"suite {path}") for one in entry.take("experiments", list)),
    )
    entry.end()
    for name, count in Counter(one.name for one in suite.experiments).items():
        if count > 1:
            raise UsageError(f"suite {path}: {count} experiments are called '{name}'; rename one")
    return suite


def _experiment(content: Any, where: str) -> Experiment:
    entry = Entry(content, f"{where}, an experiment")
    name = entry.take("id", str)
    entry.where = where = f"{where}, {name}"
    _check_name(name, where)
    configs = entry.take("runs", dict)
    _check_configs(configs, where)
    seeds = entry.take_several("seeds", int)
    grid = tuple(_axis(k, v, where) for k, v in entry.take("grid", dict, {}).items())
    experiment = Experiment(
        name,
        entry.take("figure", str),
        configs,
        seeds,
        entry.take_several("claims", str, ()),
        grid,
        _tuning(entry.take("tune", dict, None), where),
        _replica(entry.take("replica", (dict, str), {}), seeds, configs, grid, where),
    )
    entry.end()
    _check_claims(experiment, where)
    if experiment.tuning and experiment.tuning.seed in seeds:
        raise UsageError(f"{where}: the seed of tune is one of the experiment's; take another")
    if experiment.tuning and experiment.grid:
        raise UsageError(f"{where}: has a grid and tune; an experiment has one of them")
    return experiment


def _check_configs(configs: Mapping[str, Any], where: str) -> None:
    if not configs:
        raise UsageError(f"{where}: runs is empty; name at least one role and its config")
    for role, config in configs.items():
        _check_name(role, where)
        if not isinstance(config, str) or not Path(config).is_file():
            raise UsageError(f"{where}: config {config} of role '{role}' does not exist here")


def _check_name(name: str, where: str) -> None:
    """What names are made of is part of a folder's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"{where}: '{name}' can be no folder's name: use letters, digits, . _ -")


def _check_claims(experiment: Experiment, where: str) -> None:
    known = [claim.name for claim in CLAIMS if claim.experiment == experiment.name]
    for name in experiment.claims:
        if name not in known:
            some = ", ".join(known) or "none"
            raise UsageError(f"{where}: no claim '{name}' is about it; those that are: {some}")


def _axis(name: str, content: Any, where: str) -> Axis:
    _check_name(name, f"{where}, grid")
    entry = Entry(content, f"{where}, grid, {name}")
    if ("values" in content) == ("factors" in content):
        raise UsageError(f"{entry.where}: give values, or factors of the configs' own")
    key, numbers = entry.take("key", str), (int, float)
    if "values" in content:
        axis = Axis(name, key, values=entry.take_several("values", numbers))
    else:
        axis = Axis(name, key, factors=entry.take_several("factors", numbers))
    entry.end()
    return axis


def _fewer(grid: tuple[Axis, ...], chosen: Mapping[str, Any], where: str) -> tuple[Axis, ...]:
    """Leave of each axis what is chosen; all of those that nothing is said of."""
    entry, fewer = Entry(chosen, where), []
    for axis in grid:
        known = axis.values or axis.factors
        left = entry.take_several(axis.name, (int, float), known)
        if unknown := [value for value in left if value not in known]:
            raise UsageError(f"{where}: {axis.name} has no {unknown[0]:g} at full size")
        fewer.append(replace(axis, values=left) if axis.values else replace(axis, factors=left))
    entry.end()
    return tuple(fewer)


def _tuning(content: Mapping[str, Any] | None, where: str) -> Tuning | None:
    if content is None:
        return None
    entry = Entry(content, f"{where}, tune")
    tuning = Tuning(
        entry.take("option", str),
        entry.take("key", str),
        entry.take_several("factors", (int, float)),
        entry.take("seed", int),
        entry.take("metric", str),
    )
    entry.end()
    if tuning.metric not in METRICS:
        known = ", ".join(METRICS)
        raise UsageError(f"{where}, tune: no metric '{tuning.metric}'; there are {known}")
    return tuning


def _replica(
    content: Mapping[str, Any] | str,
    seeds: tuple[int, ...],
    roles: Collection[str],
    grid: tuple[Axis, ...],
    where: str,
) -> ReplicaPart | str:
    if isinstance(content, str):
        return content
    entry = Entry(content, f"{where}, replica")
    controls = entry.take("controls", dict, {})
    part = ReplicaPart(
        entry.take_several("seeds", int) if "seeds" in content else seeds,
        float(entry.take("longest", (int, float), 10.0)),
        float(entry.take("fastest", (int, float), math.inf)),
        entry.take("validations", int, VALIDATIONS),
        entry.take("options", dict, {}),
        entry.take("embedded_options", dict, {}),
        {role: _control(one, f"{where}, control {role}") for role, one in controls.items()},
        _fewer(grid, entry.take("grid", dict, {}), f"{where}, replica, grid"),
    )
    entry.end()
    _check_roles(part.options, {"", *roles}, f"{where}, options")
    _check_roles(part.embedded_options, {"", *roles}, f"{where}, embedded_options")
    _check_roles((control.of for control in part.controls.values()), roles, f"{where}, controls")
    for role in part.controls:
        _check_name(role, f"{where}, controls")
        if role in roles:
            raise UsageError(f"{where}: control '{role}' is called as one of the roles; rename it")
    return part


def _control(content: Any, where: str) -> Control:
    entry = Entry(content, where)
    control = Control(entry.take("of", str), entry.take("options", dict))
    entry.end()
    return control


def _check_roles(named: Iterable[str], roles: Collection[str], where: str) -> None:
    for role in named:
        if role not in roles:
            raise UsageError(
                f"{where}: no role '{role}'; there are {', '.join(sorted(filter(None, roles)))}"
            )
