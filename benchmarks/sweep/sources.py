"""The config of each role of an experiment: as the suite names it, or scaled to a replica."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from benchmarks.errors import UsageError
from benchmarks.launch import command as launch
from benchmarks.replicas import TASKS, Target, embedded_target, folder_target, time_scale

from .suite import Experiment, Options, ReplicaPart


@dataclass(frozen=True)
class Source:
    """What a role's runs are made of.

    Attributes:
        config: The config, but for seed and what a sweep varies.
        path: Its file; that of the full size, of a replica.
        scale: How it stands to the published run, in words; empty where it is that.
        is_replica: Whether its config is in no file yet.
    """

    config: Config
    path: str
    scale: str = ""
    is_replica: bool = False


def full_size(experiment: Experiment, overrides: Sequence[str]) -> dict[str, Source]:
    """Return each role's config as ``benchmarks run`` would train it.

    Args:
        experiment: What is run.
        overrides: What the user sets in every config, as ``a.b=c``.

    Raises:
        UsageError: A config does not load.
    """
    scale = f"with {', '.join(overrides)}" if overrides else ""
    return {
        role: Source(_load(path, overrides), path, scale)
        for role, path in experiment.configs.items()
    }


def replicas(
    experiment: Experiment,
    part: ReplicaPart,
    originals: Mapping[str, Source],
    target: Target,
    overrides: Sequence[str],
) -> dict[str, Source]:
    """Return the time-scaled config of each role, controls included.

    Args:
        experiment: What is scaled down.
        part: How.
        originals: What :func:`full_size` returned, without overrides.
        target: Model and data.
        overrides: What the user sets in every replica, as ``a.b=c``.

    Raises:
        UsageError: A schedule cannot be scaled.
    """
    configs = {role: source.config for role, source in originals.items()}
    scaled = time_scale(configs, target, part.longest, part.validations, part.fastest)
    of = {role: role for role in configs} | {role: c.of for role, c in part.controls.items()}
    sources = {}
    for role, origin in of.items():
        settings = _settings(part, origin, target)
        if role in part.controls:
            settings |= part.controls[role].options
        settings |= _parsed(overrides)
        config = deepcopy(scaled[origin].config)
        for key, value in settings.items():
            config.merge_from_dict({key: value})
        scale = "; ".join([scaled[origin].scale_of(config), *_in_words(settings)])
        sources[role] = Source(config, experiment.configs[origin], scale, is_replica=True)
    return sources


def _settings(part: ReplicaPart, role: str, target: Target) -> dict[str, Any]:
    """What the suite sets in a role's replica."""
    tables = [part.options, part.embedded_options] if target.embedded else [part.options]
    return {k: v for table in tables for name in ("", role) for k, v in table.get(name, {}).items()}


def _in_words(settings: Options) -> list[str]:
    words = [f"{key}={_short(value)}" for key, value in settings.items()]
    return [f"besides, {', '.join(words)}"] if words else []


def _short(value: Any) -> Any:
    """Say once what several keys of a dict are all set to."""
    several = list(value.values()) if isinstance(value, Mapping) else []
    same = len(several) > 1 and all(one == several[0] for one in several)
    return f"{several[0]} for {', '.join(value)}" if same else value


def find_targets(folders: Sequence[Path]) -> dict[str, Target]:
    """Return what replicas train on, by task.

    Args:
        folders: Data sets in the layout of ImageNet (class folders), of COCO (annotations) or of
            nanoGPT (token files); none for the small networks on the suite's own data.

    Raises:
        UsageError: A folder holds no data set, or two hold one of the same task.
    """
    if not folders:
        return {task: embedded_target(task) for task in TASKS}
    targets: dict[str, Target] = {}
    for folder in folders:
        target = folder_target(folder)
        if target.task in targets:
            raise UsageError(
                f"--replica {folder}: a second data set for {target.task}; name one of each task"
            )
        targets[target.task] = target
    return targets


def _load(path: str, overrides: Sequence[str]) -> Config:
    return launch.load_config(_arguments(path, overrides))


def _parsed(overrides: Sequence[str]) -> dict[str, object]:
    return dict(_arguments("", overrides).cfg_options or {})


def _arguments(path: str, overrides: Sequence[str]) -> argparse.Namespace:
    """Have ``benchmarks run`` itself read its arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    launch.add_parser(parser.add_subparsers())
    options = ["--cfg-options", *overrides] if overrides else []
    return parser.parse_args(["run", path, *options])
