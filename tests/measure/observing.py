"""Trains a small network for a few steps and asks what the observer found."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from smd_hooks.measure import ScaleInvarianceObserver, Verdict
from smd_hooks.measure.invariance import BATCHES


def bounded(outputs: Tensor) -> Tensor:
    """A loss that no symmetry of the outputs makes trivial."""
    return outputs.flatten(1).cos().sum()


def train(
    model: nn.Module,
    steps: int = BATCHES,
    loss: Callable[[Tensor], Tensor] = bounded,
    shape: tuple[int, ...] = (6, 4, 12, 12),
    lr: float = 1e-3,
) -> ScaleInvarianceObserver:
    """Return an observer that has watched ``steps`` steps on random inputs."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    observer = ScaleInvarianceObserver(model, optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(torch.randn(shape))).backward()
        optimizer.step()
    observer.detach()
    return observer


def observe(
    model: nn.Module,
    steps: int = BATCHES,
    loss: Callable[[Tensor], Tensor] = bounded,
    prepare: Callable[[nn.Module], object] = lambda model: None,
    size: int = 12,
) -> dict[str, Verdict]:
    """Return the verdicts on a network of images with 4 channels, by parameter."""
    torch.manual_seed(0)
    model.train()
    prepare(model)
    observer = train(model, steps, loss, (6, 4, size, size))
    return {v.parameter: v for v in observer.verdicts()}


class Joined(nn.Module):
    """Two convs that one norm follows, and if asked a third summand that no norm knows."""

    def __init__(self, third: nn.Module | None = None, bias: bool = False) -> None:
        super().__init__()
        self.left, self.right = (nn.Conv2d(4, 4, 1, bias=bias) for _ in range(2))
        self.norm: nn.Module = nn.BatchNorm2d(4)
        self.third = third

    def forward(self, x: Tensor) -> Tensor:
        joined = self.left(x) + self.right(x.cos())
        return self.norm(joined if self.third is None else joined + self.third(x))
