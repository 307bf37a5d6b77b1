"""The update rule of each weight, read off the optimizer that training would build."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import OPTIMIZERS
from torch import nn

from ..measure.parameters import is_measurable
from ..optim.rotational import rotational_defaults
from ..theory import NoPrediction, UpdateRule
from ..theory.rule_readers import ROTATIONAL_UPDATE
from .configs import in_a_line
from .schedules import kind_of

_KEPT = ("optimizer", "paramwise_cfg", "constructor", "accumulative_counts", "clip_grad")


@dataclass(frozen=True)
class WeightRule:
    """What the optimizer does to some weights.

    Attributes:
        rule: The update rule at the learning rate that the config states; in words where
            there is none.
        lr: That learning rate.
        weights: Names of the weight matrices; none where no model was built.
    """

    rule: UpdateRule | str
    lr: float
    weights: tuple[str, ...]


def read_rules(
    wrapper: Mapping[str, Any],
    model: nn.Module | None,
    lr_factor: float = 1.0,
    turned_by: Mapping[str, Any] | None = None,
) -> tuple[str, list[WeightRule]]:
    """Read the update rules of a config's ``optim_wrapper``.

    Args:
        wrapper: ``optim_wrapper`` of a config.
        model: The model, on any device; None if it could not be built: then its weights are
            taken for alike.
        lr_factor: Factor on every learning rate (``auto_scale_lr``).
        turned_by: Options of RotationalUpdateHook, if it is among the hooks.

    Returns:
        The optimizer in a few words, and its rules with their weight matrices, the most
        weights first.

    Raises:
        ValueError: The optimizer cannot be built, or there are several.
    """
    optimizer = _build(wrapper, model)
    names: dict[int, str] = {}
    if model is not None:
        names = {id(p): name for name, p in model.named_parameters()}
    if turned_by is not None:
        options = {k: v for k, v in turned_by.items() if k not in ("type", "priority")}
        setattr(optimizer, ROTATIONAL_UPDATE, {**_TURNED, **options})
    found: dict[tuple[UpdateRule | str, float], list[str]] = {}
    for group in optimizer.param_groups:
        matrices = [p for p in group["params"] if model is None or is_measurable(p)]
        if not matrices:
            continue
        scaled = {**group, "lr": float(group["lr"]) * lr_factor}
        try:
            rule: UpdateRule | str = UpdateRule.from_optimizer(optimizer, scaled)
        except NoPrediction as reason:
            rule = str(reason)
        weights = found.setdefault((rule, scaled["lr"]), [])
        weights += [names[id(p)] for p in matrices if id(p) in names]
    rules = [WeightRule(rule, lr, tuple(weights)) for (rule, lr), weights in found.items()]
    return _in_words(optimizer, lr_factor), sorted(rules, key=lambda r: -len(r.weights))


_TURNED = {
    **rotational_defaults(True, True, 0.9, "sqrt", None),
    "rotational": None,
}


def _build(wrapper: Mapping[str, Any], model: nn.Module | None) -> torch.optim.Optimizer:
    if isinstance(wrapper, Mapping) and "optimizer" not in wrapper:
        several = [k for k, v in wrapper.items() if isinstance(v, Mapping) and "optimizer" in v]
        if several:
            raise ValueError(f"a run with several optimizers has no forecast: {', '.join(several)}")
    if not isinstance(wrapper, Mapping) or not isinstance(wrapper.get("optimizer"), Mapping):
        raise ValueError("the config has no optim_wrapper with an optimizer: nothing is trained")
    kind = wrapper["optimizer"].get("type")
    if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
        raise ValueError(
            f"optimizer {kind} is not registered: name its module in the config's custom_imports"
        )
    # mixed precision asks for a GPU, and other wrappers for their launcher
    config = copy.deepcopy({k: wrapper[k] for k in _KEPT if wrapper.get(k) is not None})
    if model is None:  # what is said of single layers has none to act on
        model = nn.Linear(2, 2)
        config = {k: v for k, v in config.items() if k not in ("paramwise_cfg", "constructor")}
    try:
        built = build_optim_wrapper(model, {"type": "OptimWrapper", **config})
    except Exception as error:
        name = kind_of(wrapper["optimizer"])
        raise ValueError(f"optimizer {name} cannot be built: {in_a_line(error)}") from error
    if isinstance(built, OptimWrapperDict):
        raise ValueError(f"a run with several optimizers has no forecast: {', '.join(built)}")
    return built.optimizer


def _in_words(optimizer: torch.optim.Optimizer, lr_factor: float) -> str:
    settings = {**optimizer.defaults, "lr": optimizer.defaults.get("lr", 0.0) * lr_factor}
    told = ("lr", "momentum", "betas", "beta", "weight_decay", "nesterov", "angle")
    words = [f"{k} {_short(settings[k])}" for k in told if settings.get(k)]
    return f"{type(optimizer).__name__}({', '.join(words)})"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
