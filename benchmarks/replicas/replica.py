"""``time_scale``: from an experiment's configs to those of its replica."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from benchmarks.components import type_name
from benchmarks.errors import UsageError
from benchmarks.replicas.epochs import full_epoch
from benchmarks.replicas.scaling import (
    Segment,
    TimeMap,
    common_factor,
    decay_multiplier,
    kept_length,
    second_moment_decay,
    segments,
    slowdown,
    time_map,
)
from benchmarks.replicas.schedule import knots, rewrite_schedule
from benchmarks.replicas.targets import Target, task_of
from smd_hooks.analysis.forecast.plan import Plan
from smd_hooks.planning import read_plan
from smd_hooks.planning.configs import importable_mmcv
from smd_hooks.planning.epochs import processes_of
from smd_hooks.planning.models import build_model
from smd_hooks.theory import UpdateRule

VALIDATIONS = 20
"""How often a replica is validated, about, unless someone says otherwise."""


_MOMENTUM = "momentum remembers as many steps as at full size"


@dataclass(frozen=True)
class Replica:
    """A time-scaled run.

    Attributes:
        config: What is trained.
        speed: How fast it runs, in words.
        original_steps: Steps of the original.
        original_batch: Examples per step of the original, over all processes.
        rates: What was done to the optimizer's settings, in words, by their names.
        remarks: What was cut, and what model and data are.
    """

    config: Config
    speed: str
    original_steps: int
    original_batch: int
    rates: Mapping[str, str]
    remarks: tuple[str, ...]

    @property
    def scale(self) -> str:
        """In one line, how it stands to the original: factor, steps, what was cut."""
        return self.scale_of(self.config)

    def scale_of(self, config: Config) -> str:
        """Say the same of a config made from the replica's, as it is then.

        Args:
            config: The replica's, after someone has set something in it.
        """
        own, steps = _steps(self.config), _steps(config)
        done = f"{own:,}" if steps == own else f"{steps:,} of {own:,}"
        batch = int(config.train_dataloader.batch_size) * _micro_batches(config)
        before, after = self.config.optim_wrapper.optimizer, config.optim_wrapper.optimizer
        words = [f"{self.speed}: {done} steps for {self.original_steps:,}"]
        words += [told for key, told in self.rates.items() if before.get(key) == after.get(key)]
        batches = f"batch {batch:,} for {self.original_batch:,}"
        others = [batches] if batch != self.original_batch else []
        return "; ".join([", ".join(words), *self.remarks, *others, *_without_use(config)])


@dataclass(frozen=True)
class _Original:
    """A config read as a plan: its rules at their highest learning rates, and its pieces."""

    role: str
    config: Config
    epoch: int | None
    plan: Plan
    rules: tuple[UpdateRule, ...]
    pieces: tuple[Segment, ...]

    @property
    def slowest(self) -> float:
        """Longest relaxation time at the highest learning rate; NaN where nothing relaxes."""
        times = [time for rule in self.rules if math.isfinite(time := slowdown(rule))]
        return max(times, default=math.nan)


def time_scale(
    configs: Mapping[str, Config],
    target: Target,
    longest: float = 10.0,
    validations: int = VALIDATIONS,
    fastest: float = math.inf,
) -> dict[str, Replica]:
    """Make the replica of an experiment: the same Δ/Δ* curves in far fewer steps.

    Weight decay is multiplied, and the schedule divided, by one factor: the largest with
    which no run relaxes in fewer than 50 steps, or ``fastest``. So all stages keep their lengths in
    relaxation times, but for those at constant learning rate beyond ``longest``, which are
    cut to that. Optimizer, schedule and hooks stay; model and data are the target's. Runs of
    different lengths (in steps, as at different batch sizes) have a factor of their own:
    what is compared step by step runs equally fast. Batches are not scaled, for Δ* does not
    depend on them.

    Args:
        configs: The experiment's configs by role, loaded, at full size.
        target: What model and data the replica has.
        longest: Relaxation times, of the slowest run, after which a stage is cut.
        validations: How often a replica is validated, about, besides around its drops.
        fastest: The factor at most, for runs at larger rates than their configs', as in a grid.

    Returns:
        By role, the replica.

    Raises:
        UsageError: In one line: a config is no plan, or has a schedule that cannot be scaled,
            or is of another task than the target.

    Source: derived from the norm law of Wan et al., *Spherical Motion Dynamics*, Theorem 2.

    Example::

        config = Config.fromfile("configs/imagenet/resnet50_goyal_8xb32-90e.py")
        replica = time_scale({"plain": config}, embedded_target("classification"))["plain"]
        replica.config.dump("replica.py")
    """
    originals = [_read(role, config, target) for role, config in configs.items()]
    by_length: dict[int, list[_Original]] = defaultdict(list)
    for original in originals:
        by_length[original.plan.steps].append(original)
    found = {}
    for together in by_length.values():
        rules = [rule for original in together for rule in original.rules]
        factor = min(fastest, common_factor(rules))
        slowest = [o.slowest for o in together if math.isfinite(o.slowest)]
        kept = longest * max(slowest, default=math.inf)
        for original in together:
            found[original.role] = _scale(original, target, factor, kept, validations)
    return {role: found[role] for role in configs}


def _read(role: str, config: Config, target: Target) -> _Original:
    if task_of(config) != target.task:
        raise UsageError(f"{role} is a {task_of(config)} run, and the target is for {target.task}")
    if _micro_batches(config) > 1:
        raise UsageError(f"{role} accumulates gradients: no time-scaled replica")
    epoch = full_epoch(config)
    try:
        plan = read_plan(config, role, epoch)
    except ValueError as error:
        raise UsageError(f"{role} cannot be time-scaled: {error}") from error
    rules = tuple(
        group.rule.at(float(group.lr.max()), group.rule.weight_decay)
        for group in plan.groups
        if not isinstance(group.rule, str)
    )
    pieces = segments(knots(config, epoch), plan.starts, plan.steps, plan.groups[0].lr)
    return _Original(role, config, epoch, plan, rules, tuple(pieces))


def _scale(
    original: _Original, target: Target, factor: float, kept: float, validations: int
) -> Replica:
    config, what = target.fit(original.config)
    # its time is counted in iterations, of which a step may have several
    to = time_map(original.pieces, factor / _micro_batches(config), kept)
    speed = f"time-scaled by {factor:g}" if factor > 1 else "at its own speed"
    rates = dict(_scale_optimizer(config, original.rules, factor))
    rewrite_schedule(config, original.epoch, to, _drops(original.pieces, to), validations)
    _measure_as_often(config, factor)
    return Replica(
        config,
        speed,
        original.plan.steps,
        int(original.config.train_dataloader.batch_size) * processes_of(original.config),
        rates,
        (*_cuts(original, factor, kept), *([_MOMENTUM] if factor > 1 else []), what),
    )


def _scale_optimizer(
    config: Config, rules: Sequence[UpdateRule], factor: float
) -> Iterable[tuple[str, str]]:
    """Multiply weight decay, and what else sets rates per step; say what and by how much."""
    optimizer = config.optim_wrapper.optimizer
    multiplier = decay_multiplier(rules[0], factor) if rules else factor
    # where it is not stated, all weights have the optimizer's default: MMEngine sees to that
    decay = optimizer.get("weight_decay", rules[0].weight_decay if rules else 0.0)
    if decay and multiplier > 1:
        optimizer.weight_decay = float(f"{decay * multiplier:.6g}")
        yield "weight_decay", f"weight decay × {multiplier:g}"
    if "Adam" in type_name(optimizer):
        beta1, beta2 = optimizer.get("betas", (0.9, 0.999))
        if (scaled := second_moment_decay(beta2, factor)) != beta2:
            optimizer.betas = (beta1, scaled)
            yield "betas", f"beta2 {scaled:g} for {beta2:g}"
    for turning in [optimizer, *config.get("custom_hooks", [])]:
        if turning.get("angle") and factor > 1:
            turning.angle = float(f"{turning.angle * math.sqrt(factor):.6g}")
            yield "angle", f"angle × {math.sqrt(factor):.3g}"


def _micro_batches(config: Config) -> int:
    return int(config.optim_wrapper.get("accumulative_counts") or 1)


def _steps(config: Config) -> int:
    return int(config.train_cfg.max_iters) // _micro_batches(config)


def _drops(pieces: Sequence[Segment], to: TimeMap) -> list[int]:
    return [
        to(after.start)
        for before, after in pairwise(pieces)
        if before.level and after.level is not None and after.level < before.level
    ]


def _measure_as_often(config: Config, factor: float) -> None:
    """Measure every step; representations and noise as often in a relaxation time as before."""
    for hook in config.get("custom_hooks", []):
        if type_name(hook) == "SMDHook":
            hook.interval = 1
            for measure in (hook.get("representation"), hook.get("noise")):
                if measure is not None:
                    measure.interval = max(1, round(measure.interval / factor))
        if type_name(hook) == "SNRCorrectionHook":
            hook.interval = max(1, round(hook.get("interval", 10) / factor))


def _cuts(original: _Original, factor: float, kept: float) -> Iterable[str]:
    """Say which stages are cut, in relaxation times of this run."""
    stages = original.pieces[1 if original.pieces[0].level is None else 0 :]
    for number, piece in enumerate(stages, start=1):
        left, length = kept_length(piece, kept), piece.end - piece.start
        if left == length or not piece.level:
            continue
        if math.isfinite(tau := original.slowest / piece.level):
            yield f"stage {number} cut from {length / tau:.3g} τ to {left / tau:.3g} τ"
        else:
            yield f"stage {number} cut from {length / factor:,.0f} steps to {left / factor:,.0f}"


def _without_use(config: Config) -> Iterable[str]:
    """Say which of the optimizer's settings speak of parameters that this model does not have."""
    keys = (config.optim_wrapper.get("paramwise_cfg") or {}).get("custom_keys") or {}
    if not keys:
        return
    scope = config.get("default_scope") or "mmengine"
    with DefaultScope.overwrite_default_scope(scope), importable_mmcv():
        model = build_model(config.model)
    names = [name for name, _ in model.named_parameters()] if isinstance(model, nn.Module) else []
    idle = [key for key in keys if not any(key in name for name in names)]
    if names and idle:
        yield f"no parameters here for its settings of {', '.join(idle)}"
