"""A small net, every optimizer that rescaling follows, and lr changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from smd_hooks.measure.rescaling import (
    EquilibriumRescaling,
)
from smd_hooks.theory import (
    UpdateRule,
    rescale_factor,
)

timm_optim = pytest.importorskip("timm.optim")
lion_pytorch = pytest.importorskip("lion_pytorch")

WEIGHTS = {"conv.weight": ("norm",)}
OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01),
    "heavy ball": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "Nesterov": lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.01, nesterov=True),
    "SGDW": lambda p: timm_optim.SGDW(p, 0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.01),
    "Adam, decoupled": lambda p: torch.optim.Adam(
        p, 0.1, weight_decay=0.01, decoupled_weight_decay=True
    ),
    "Lion": lambda p: timm_optim.Lion(p, lr=0.1, weight_decay=0.01),
    "lion-pytorch": lambda p: lion_pytorch.Lion(p, lr=0.1, weight_decay=0.01),
}


class Net(nn.Module):
    def __init__(self, norm: nn.Module | None = None, bias: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, bias=bias)
        self.norm = norm or nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def batch() -> Tensor:
    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def train(model: nn.Module, optimizer: Optimizer, steps: int = 1) -> None:
    x = batch().to(next(model.parameters()).dtype)
    labels = torch.arange(16) % 4
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()


def followed(
    kind: str = "heavy ball", model: Net | None = None, steps: int = 1
) -> tuple[Net, Optimizer, EquilibriumRescaling]:
    """A net that was trained for a while and then is followed."""
    model = model or Net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    train(model, optimizer, steps)
    rescaling = EquilibriumRescaling(optimizer, model, WEIGHTS)
    assert rescaling.follow(steps) == {}
    return model, optimizer, rescaling


def set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def factor(optimizer: Optimizer, k: float) -> float:
    return rescale_factor(UpdateRule.from_optimizer(optimizer, optimizer.param_groups[0]), k)
