"""A config's schedule and loop, rewritten for a replica's time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from benchmarks.components import type_name
from benchmarks.errors import UsageError
from benchmarks.replicas.scaling import TimeMap

BEFORE, AFTER = 5, 1
"""Steps around a drop of the learning rate after each of which a replica is validated."""


def knots(config: Config, epoch: int | None) -> list[int]:
    """Iterations at which a scheduler begins, drops the rate, or is at the end of a ramp.

    Args:
        config: The original.
        epoch: Iterations of its epoch; None if its loop counts iterations.

    Raises:
        UsageError: A scheduler of a kind that is not known here, or that never acts.
    """
    found: set[int] = set()

    def remember(iteration: float) -> int:
        found.add(round(iteration))
        return 0

    for scheduler in _schedulers(config):
        _mapped(scheduler, epoch, remember)
    return sorted(found)


def rewrite_schedule(
    config: Config, epoch: int | None, to: TimeMap, drops: Sequence[int], validations: int
) -> None:
    """Give a config the replica's schedulers, loop, logging and checkpoints, in place.

    It is validated ``validations`` times, evenly, and around each drop of the learning rate:
    after each of the last five steps of a stage and the first of the next.

    Args:
        config: The config, with the original's schedule.
        epoch: Iterations of the original's epoch; None if its loop counts iterations.
        to: The replica's time.
        drops: Replica's iterations at which the learning rate drops.
        validations: How often it is validated, about.

    Raises:
        UsageError: As :func:`knots`.
    """
    schedulers = [_mapped(scheduler, epoch, to) for scheduler in _schedulers(config)]
    steps = to.replica[-1]
    interval = max(1, -(-steps // validations))
    config.param_scheduler = schedulers
    config.train_cfg = {
        "type": "IterBasedTrainLoop",
        "max_iters": steps,
        "val_interval": interval,
        "dynamic_intervals": _around(drops, interval),
    }
    config.log_processor = {**(config.get("log_processor") or {}), "by_epoch": False}
    config.default_hooks = {
        **(config.get("default_hooks") or {}),
        "logger": {"type": "LoggerHook", "interval": 50, "log_metric_by_epoch": False},
        "checkpoint": {
            "type": "CheckpointHook",
            "by_epoch": False,
            "interval": max(1, -(-steps // 3)),  # two on the way, to resume from
            "max_keep_ckpts": 1,
        },
    }


def _around(drops: Sequence[int], interval: int) -> list[tuple[int, int]]:
    """``dynamic_intervals``: pairs of the iteration that is next, and the interval from there."""
    changes: list[tuple[int, int]] = []
    for drop in drops:
        begin, end = max(1, drop - BEFORE + 2), drop + AFTER + 2
        if changes and changes[-1][0] >= begin:  # the drop before is that near
            changes.pop()
        else:
            changes.append((begin, 1))
        changes.append((end, interval))
    return changes


def _schedulers(config: Config) -> list[Mapping[str, Any]]:
    several = config.get("param_scheduler") or []
    return [several] if isinstance(several, Mapping) else list(several)


def _mapped(
    scheduler: Mapping[str, Any], epoch: int | None, to: Callable[[float], int]
) -> dict[str, Any]:
    """Return a scheduler that counts the replica's iterations, every position mapped by ``to``."""
    kind = type_name(scheduler)
    if kind not in _POSITIONS:
        raise UsageError(
            f"param_scheduler {kind}: a time-scaled replica knows {', '.join(_POSITIONS)}"
        )
    by_epoch = scheduler.get("by_epoch", True)
    if by_epoch and epoch is None:
        raise UsageError(f"param_scheduler {kind} counts epochs, but the training loop does not")
    unit = epoch if by_epoch and epoch is not None else 1
    new = {k: copy.deepcopy(v) for k, v in scheduler.items() if k != "convert_to_iter_based"}
    new |= {"type": kind, "by_epoch": False}
    converted = unit if scheduler.get("convert_to_iter_based") else 1
    begin = scheduler.get("begin", 0)
    first = to(begin * unit)
    if "begin" in new:
        new["begin"] = first
    _POSITIONS[kind](new, scheduler, lambda t: to((begin + t) * unit) - first, converted)
    return new


Place = Callable[[float], int]
"""From a position after a scheduler's begin, in its own unit, to the replica's."""


def _multi_step(new: dict[str, Any], old: Mapping[str, Any], place: Place, converted: int) -> None:
    new["milestones"] = [place(milestone) for milestone in old["milestones"]]
    _ending(new, old, place)


def _until_reached(
    new: dict[str, Any], old: Mapping[str, Any], place: Place, converted: int
) -> None:
    """A linear or constant factor reaches its last value one tick before its ``end``."""
    if "end" in old:
        length = old["end"] - old.get("begin", 0)
        new["end"] = new.get("begin", 0) + place(length - 1 / converted) + 1


def _cosine(new: dict[str, Any], old: Mapping[str, Any], place: Place, converted: int) -> None:
    if "T_max" in old:
        new["T_max"] = place(old["T_max"])
    _ending(new, old, place)


def _ending(new: dict[str, Any], old: Mapping[str, Any], place: Place) -> None:
    if "end" in old:
        new["end"] = new.get("begin", 0) + place(old["end"] - old.get("begin", 0))


def _share(new: dict[str, Any], old: Mapping[str, Any], place: Place, converted: int) -> None:
    new["total"] = place(old["total"])


_POSITIONS = {
    "WarmupShareLR": _share,
    "MultiStepLR": _multi_step,
    "LinearLR": _until_reached,
    "ConstantLR": _until_reached,
    "CosineAnnealingLR": _cosine,
}
