"""A small network with BatchNorm on made-up images, for what only training shows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def network() -> nn.Sequential:
    """Two scale-invariant convolutions, a scale-invariant layer and an ordinary one."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 32, bias=False),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def batches(size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Noisy copies of ten patterns of 8 × 8, without end."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(10, 1, 8, 8, generator=generator)
    while True:
        labels = torch.randint(10, (size,), generator=generator)
        noise = 2.0 * torch.randn(size, 1, 8, 8, generator=generator)
        yield patterns[labels] + noise, labels


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, size: int = 64
) -> list[float]:
    """Return the loss of every step."""
    losses = []
    for (images, labels), _ in zip(batches(size), range(steps), strict=False):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
