"""Reads a config as a plan: loop, schedule, optimizer, and which layers can be scale-invariant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from ..analysis.forecast.plan import Layers, Plan, WeightGroup
from ..theory import NoPrediction, SGDRule, UpdateRule, equilibrium_norm
from .configs import importable_mmcv, quiet
from .epochs import count_iterations, processes_of
from .layers import judge_layers
from .models import build_model, initial_rms
from .norms_in_config import layers_by_config
from .optimizers import WeightRule, read_rules
from .schedules import kind_of, never_act, read_schedule


def read_plan(
    cfg: Config,
    name: str = "",
    iters_per_epoch: int | None = None,
    gpus: int | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """Read a config as a plan.

    Args:
        cfg: The config, loaded.
        name: What to call it.
        iters_per_epoch: Iterations of one epoch; None to count the training data where it is
            needed.
        gpus: Number of processes; None for what ``auto_scale_lr`` speaks of.
        notes: What is to be told beside the forecast.

    Raises:
        ValueError: In one line: there is no training loop, optimizer or schedule in it that a
            forecast could be made of.
    """
    scope = cfg.get("default_scope") or "mmengine"
    with DefaultScope.overwrite_default_scope(scope), importable_mmcv():
        return _Reader(cfg, iters_per_epoch, gpus).read(name, tuple(notes))


class _Reader:
    """One config being read; what several parts need is kept here."""

    def __init__(self, cfg: Config, iters_per_epoch: int | None, gpus: int | None) -> None:
        self.cfg = cfg
        self.notes: list[str] = []
        self.processes = gpus or processes_of(cfg)
        self.iters_per_epoch = iters_per_epoch

    def read(self, name: str, notes: tuple[str, ...]) -> Plan:
        wrapper = self.cfg.get("optim_wrapper") or {}
        hooks = [h for h in self.cfg.get("custom_hooks") or [] if isinstance(h, Mapping)]
        model = build_model(self.cfg.get("model"))
        # the optimizer looks at norms and biases, and must see the model as it was built
        built = model if isinstance(model, nn.Module) else None
        turned = next((h for h in hooks if kind_of(h) == "RotationalUpdateHook"), None)
        with quiet():
            words, rules = read_rules(wrapper, built, self._lr_factor(), turned)
        iterations, by_epoch = self._loop()
        accumulated = int(wrapper.get("accumulative_counts") or 1)
        starts, steps, rates = self._schedule(rules, iterations, by_epoch, accumulated)
        if isinstance(model, str):
            layers = layers_by_config(self.cfg.get("model"), model)
        else:
            with quiet():
                layers = judge_layers(model)
        rules = _that_matter(rules, layers)
        per_epoch = self.iters_per_epoch
        return Plan(
            name=name,
            starts=starts,
            steps=steps,
            groups=tuple(self._group(r, rates[r.lr], layers, model) for r in rules),
            layers=layers,
            optimizer=words,
            steps_per_epoch=None if per_epoch is None else per_epoch / accumulated,
            rescaled=any(kind_of(h) == "EquilibriumRescaleHook" for h in hooks),
            clipped_to=(wrapper.get("clip_grad") or {}).get("max_norm"),
            notes=(*notes, *self.notes),
        )

    def _lr_factor(self) -> float:
        scaling = self.cfg.get("auto_scale_lr") or {}
        if not scaling.get("enable"):
            return 1.0
        batch = (self.cfg.get("train_dataloader") or {}).get("batch_size")
        if not batch or not scaling.get("base_batch_size"):
            raise ValueError(
                "auto_scale_lr needs its base_batch_size, and a batch_size to train by"
            )
        factor = batch * self.processes / scaling["base_batch_size"]
        self.notes.append(f"auto_scale_lr: learning rates × {factor:g}, for {self.processes} GPUs")
        return float(factor)

    def _loop(self) -> tuple[int, bool]:
        """Iterations in all, and whether the loop counts epochs."""
        loop = self.cfg.get("train_cfg") or {}
        iterations, epochs = int(loop.get("max_iters") or 0), int(loop.get("max_epochs") or 0)
        by_epoch = not iterations
        if by_epoch and not epochs:
            raise ValueError(
                "the config's train_cfg has no max_epochs and no max_iters: no schedule"
            )
        schedulers = self.cfg.get("param_scheduler")
        if self.iters_per_epoch is None and (by_epoch or _converts(schedulers)):
            self.iters_per_epoch = count_iterations(self.cfg, self.processes)
            self.notes.append(
                f"an epoch is counted for {self.processes} GPUs; --gpus says otherwise"
            )
        if by_epoch:
            assert self.iters_per_epoch is not None
            iterations = epochs * self.iters_per_epoch
        for idle in never_act(schedulers, by_epoch):
            self.notes.append(
                f"{idle} counts epochs, which this iteration-based loop does not: it never acts"
            )
        return iterations, by_epoch

    def _schedule(
        self, rules: Sequence[WeightRule], iterations: int, by_epoch: bool, accumulated: int
    ) -> tuple[np.ndarray, int, dict[float, np.ndarray]]:
        """Stretches in optimizer steps, their number, and the rates by their base rate."""
        bases = sorted({rule.lr for rule in rules})
        if not bases:
            raise ValueError("the optimizer is given no weight matrix: nothing to forecast")
        schedulers = self.cfg.get("param_scheduler")
        with quiet():
            starts, lr = read_schedule(
                schedulers, bases, iterations, self.iters_per_epoch, by_epoch
            )
        if not schedulers:
            self.notes.append("no param_scheduler: the learning rate stays as it is")
        # a step takes the rate of its last iteration
        first = np.maximum(-(-(starts - accumulated + 1) // accumulated), 0)
        steps = math.ceil(iterations / accumulated)
        last_of = np.append(first[1:] != first[:-1], True) & (first < steps)
        table = lr[last_of]
        return first[last_of], steps, {base: table[:, i] for i, base in enumerate(bases)}

    def _group(
        self, found: WeightRule, lr: np.ndarray, layers: Layers, model: nn.Module | str
    ) -> WeightGroup:
        group = WeightGroup(found.rule, lr, found.weights)
        # where nothing is scale-invariant, how large the first steps are is asked all the same
        names = [n for n in found.weights if n in set(layers.invariant or found.weights)]
        rule = found.rule
        if isinstance(rule, str | SGDRule) or isinstance(model, str) or not names:
            return group
        if self.cfg.get("load_from"):
            return replace(group, initial_unknown="the weights begin as a checkpoint's (load_from)")
        parameters = dict(model.named_parameters())
        count = sum(p.numel() for p in parameters.values())
        known = initial_rms(self.cfg.model, names, count)
        if isinstance(known, str):
            return replace(group, initial_unknown=known)
        peak = rule.at(float(lr.max()), rule.weight_decay)
        norms = [_relative_norm(peak, rms, parameters[n].numel()) for n, rms in known.items()]
        usable = [norm for norm in norms if norm is not None]
        return replace(
            group,
            initial_norm=median(usable) if usable else None,
            initial_rms=median(known.values()),
        )


def _relative_norm(rule: UpdateRule, rms: float, elements: int) -> float | None:
    """‖w‖ over r*, both under white gradients; None where r* is not known."""
    try:
        return rms * math.sqrt(elements) / equilibrium_norm(rule, elements=elements)
    except NoPrediction:
        return None


def _that_matter(rules: Sequence[WeightRule], layers: Layers) -> list[WeightRule]:
    """Rules of scale-invariant weights, if there are any; else of those that may be; else all."""
    for wanted in (layers.invariant, [n for names in layers.unknown.values() for n in names]):
        chosen = {*wanted}
        kept = [replace(r, weights=tuple(n for n in r.weights if n in chosen)) for r in rules]
        kept = [r for r in kept if r.weights]
        if kept:
            return sorted(kept, key=lambda r: -len(r.weights))
    return list(rules[:1])


def _converts(schedulers: Any) -> bool:
    several = [schedulers] if isinstance(schedulers, Mapping) else schedulers or []
    return any(isinstance(s, Mapping) and s.get("convert_to_iter_based") for s in several)
