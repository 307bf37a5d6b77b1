"""The optimizers that take turns in ``speed optim``: other people's, ours, and a copy.

All step on the same weights and gradients, each with a state of its own. Ours step in two
forms on one state: the fast one, and the readable reference that it is held equal to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch.optim import SGD, AdamW, Optimizer

from benchmarks.errors import UsageError
from benchmarks.speed.stopwatch import Named
from smd_hooks.measure.c_sums import copy_all
from smd_hooks.optim import (
    LionA,
    LionAR,
    RotationalAdamW,
    RotationalLion,
    RotationalSGD,
    RotationalUpdate,
)

Groups = list[dict[str, Any]]
Limits = Mapping[str, Mapping[str, float]]
LR = 1e-6
"""Hundreds of steps along the same gradients leave the weights about where they were."""
WEIGHT_DECAY = 0.1

TIMM_LION, TIMM_ADAMP, FUSED_ADAMW = "timm Lion, foreach", "timm AdamP, loop", "torch AdamW, fused"
YARDSTICKS = (TIMM_LION, TIMM_ADAMP, FUSED_ADAMW)
"""What every step is compared with."""
FAST, REFERENCE = "fast", "reference"
ROTATIONAL: Limits = {"cpu": {TIMM_ADAMP: 1.0}, "cuda": {FUSED_ADAMW: 1.5}}
"""Per type of device, a fast rotational step's cost over a yardstick's, at most."""
LION_AR: Limits = {
    "cpu": {TIMM_LION: 1.2, TIMM_ADAMP: 1.0},
    "cuda": {FUSED_ADAMW: 1.0},
}
"""The same of LionAR: it moves 20 bytes a weight where AdamW moves 28."""
TWO_MOMENTS: Limits = {**ROTATIONAL, "cuda": {FUSED_ADAMW: 1.3}}
"""The same of RotationalAdamW."""
MOVED = {"copy": 8, "one moment": 20, "two moments": 28}
"""Bytes a weight that a step must move: weight, gradient and moments read, all but the gradient
written. A copy is the memory's speed by which they are turned into the floor's seconds."""


@dataclass(frozen=True, eq=False)
class Contender:
    """An optimizer, in one of the forms that its step has.

    Attributes:
        name: What it is called in the table.
        form: What the form is called there.
        build: Makes the optimizer from parameter groups; forms with the same one share it.
        moved: Bytes a weight that any step of its kind must move.
        method: Name of the method that takes a step.
        limits: Per type of device and yardstick, its step's cost over that one's, at most.
    """

    name: str
    form: str
    build: Callable[[Groups], Optimizer]
    moved: int = MOVED["one moment"]
    method: str = "step"
    limits: Limits = field(default_factory=dict)

    @property
    def step(self) -> str:
        """Name of the optimizer with that of the form."""
        return f"{self.name}, {self.form}"


class Copy(Optimizer):
    """Copies all weights into buffers that are there already, as fast as the library can."""

    def __init__(self, groups: Groups) -> None:
        super().__init__(groups, {})
        self._weights = [weight for group in self.param_groups for weight in group["params"]]
        self._buffers = [torch.empty_like(weight) for weight in self._weights]
        for weight, buffer in zip(self._weights, self._buffers, strict=True):
            self.state[weight]["copy"] = buffer

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Copy."""
        copy_all(self._buffers, self._weights)


COPY = Contender("copy of the weights", "floor", Copy, MOVED["copy"])
OTHERS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("pytorch_optimizer", "Lion", "foreach", {"foreach": True}),
    ("pytorch_optimizer", "AdamP", "loop", {"foreach": False}),
    ("heavyball", "AdamW", "compiled", {}),
    ("heavyball", "SGD", "compiled", {"beta": 0.9}),
)
"""Peers that are timed where they are installed: module, class, form and settings."""


def contenders() -> list[Contender]:
    """All of them, in the order of the table: the floor, the peers, ours.

    Raises:
        UsageError: A peer is not installed.
    """
    return [COPY, *_peers(), *_ours()]


def _peers() -> list[Contender]:
    adamp, lion = _peer("timm.optim", "AdamP"), _peer("timm.optim", "Lion")
    lion_pytorch, of_lists = (
        _peer(module, "Lion") for module in ("lion_pytorch", "lion_pytorch.foreach")
    )

    def peer(name: str, form: str, optimizer: Any, **settings: Any) -> Contender:
        moved = MOVED["two moments" if "Adam" in name else "one moment"]

        def build(groups: Groups) -> Optimizer:
            built: Optimizer = optimizer(groups, lr=LR, **settings)
            return _with_gradients(built) if name.startswith("heavyball") else built

        return Contender(name, form, build, moved)

    others = [
        peer(f"{module} {name}", form, optimizer, **settings)
        for module, name, form, settings in OTHERS
        if (optimizer := _installed(module, name)) is not None
    ]
    return [
        peer("torch SGD", "foreach", SGD, momentum=0.9, foreach=True),
        peer("torch SGD", "fused", SGD, momentum=0.9, fused=True),
        peer("torch AdamW", "foreach", AdamW, foreach=True),
        peer("torch AdamW", "fused", AdamW, fused=True),
        peer("timm Lion", "loop", lion, foreach=False),
        peer("timm Lion", "foreach", lion, foreach=True),
        peer("lion-pytorch Lion", "loop", lion_pytorch),
        peer("lion-pytorch Lion", "foreach", of_lists),
        peer("timm AdamP", "loop", adamp),
        *others,
    ]


def _with_gradients(optimizer: Optimizer) -> Optimizer:
    """Give weights back the gradients that heavyball takes from them at a step."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    step = optimizer.step

    def keeping(closure: Any = None) -> Any:
        gradients = [weight.grad for weight in weights]
        result = step(closure)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        return result

    optimizer.step = keeping  # type: ignore[method-assign]
    return optimizer


def _installed(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except ImportError:
        return None


def not_installed() -> list[str]:
    """Name the peers that could be timed here, too."""
    modules = dict.fromkeys(module for module, name, _, _ in OTHERS if not _installed(module, name))
    return list(modules)


def _peer(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        needed = "timm and lion-pytorch, the peers: pip install timm lion-pytorch"
        raise UsageError(f"speed optim needs {needed} ({error})") from error


def _ours() -> list[Contender]:
    def our(name: str, optimizer: Any, limits: Limits, **settings: Any) -> list[Contender]:
        moved = MOVED["two moments" if "Adam" in name else "one moment"]

        def build(groups: Groups) -> Optimizer:
            return optimizer(groups, lr=LR, **settings)

        return [
            Contender(name, FAST, build, moved, limits=limits),
            Contender(name, REFERENCE, build, moved, "reference_step"),
        ]

    return [
        *our("LionA", LionA, {}),
        *our("LionAR per tensor", LionAR, LION_AR, per_neuron=False),
        *our("LionAR per neuron", LionAR, LION_AR),
        *our("RotationalSGD", RotationalSGD, ROTATIONAL),
        *our("RotationalAdamW", RotationalAdamW, TWO_MOMENTS),
        *our("RotationalLion", RotationalLion, ROTATIONAL),
        Contender("torch SGD, foreach, in RotationalUpdate", FAST, _constrained_sgd),
    ]


def _constrained_sgd(groups: Groups) -> Optimizer:
    return RotationalUpdate(SGD(groups, lr=LR, momentum=0.9, foreach=True)).optimizer


def two_groups(named: Named) -> Groups:
    """Decay matrices and spare the rest, as most training does."""
    parts = (([p for _, p in named if _decay(p) == d], d) for d in (WEIGHT_DECAY, 0.0))
    return [{"params": part, "weight_decay": decay} for part, decay in parts if part]


def group_per_parameter(named: Named) -> Groups:
    """The same decay in groups of one: what MMEngine makes of any ``paramwise_cfg``."""
    return [{"params": [p], "weight_decay": _decay(p)} for _, p in named]


def _decay(parameter: torch.Tensor) -> float:
    return WEIGHT_DECAY if parameter.ndim > 1 else 0.0
