"""Other people's optimizers, and which of ours each becomes under RotationalUpdate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lion_pytorch
import timm.optim
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from smd_hooks.optim import (
    RotationalAdamW,
    RotationalLion,
    RotationalSGD,
)
from tests.optim.cases import Case, Gradients

SET = {"lr": 0.01, "weight_decay": 0.1}
LION = {"betas": (0.9, 0.99), **SET}
Make = Callable[[Any], Optimizer]
PAIRS: dict[str, tuple[Make, Case]] = {
    "sgd": (lambda p: SGD(p, momentum=0.9, **SET), Case(RotationalSGD)),
    "sgd, foreach": (lambda p: SGD(p, momentum=0.9, foreach=True, **SET), Case(RotationalSGD)),
    "sgd, fused": (lambda p: SGD(p, momentum=0.9, fused=True, **SET), Case(RotationalSGD)),
    "sgd, no momentum": (lambda p: SGD(p, **SET), Case(RotationalSGD, {"momentum": 0.0})),
    "adamw": (lambda p: AdamW(p, **SET), Case(RotationalAdamW)),
    "adamw, foreach": (lambda p: AdamW(p, foreach=True, **SET), Case(RotationalAdamW)),
    "adamw, fused": (lambda p: AdamW(p, fused=True, **SET), Case(RotationalAdamW)),
    "lion": (lambda p: lion_pytorch.Lion(p, **LION), Case(RotationalLion)),
    "timm's lion": (lambda p: timm.optim.Lion(p, **LION), Case(RotationalLion)),
}
MAIN = ("sgd", "adamw", "lion")


def trained(
    optimizer: Optimizer, weights: list[nn.Parameter], steps: int = 100, late: bool = True
) -> list[nn.Parameter]:
    """Step along a warmup and a drop; some weights have no gradient at first, or now and then."""
    gradients = Gradients()
    peaks = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * (min(1, (step + 1) / 10) if step < 60 else 0.1)
        gradients.give(weights, absent=[4] * late if step < 20 else [9] if step % 3 else [])
        optimizer.step()
    return weights
