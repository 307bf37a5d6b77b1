"""Two runs that theory says are one: real optimizers, a scale-invariant net, float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import lion_pytorch
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from smd_hooks.theory import SGDRule, decay_factor

STEPS = 200
SHAPES = ((12, 8), (6, 12))


def start(scale: float = 1.0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]
    return [torch.nn.Parameter(scale * 0.3 * w) for w in draws]


def loss(weights: Iterable[Tensor], step: int) -> Tensor:
    """Two layers, each with a LayerNorm without eps after it, a new batch each step."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, SHAPES[0][1], generator=generator, dtype=torch.float64)
    labels = torch.randint(SHAPES[-1][0], (16,), generator=generator)
    for weight in weights:
        x = functional.layer_norm(x @ weight.T, weight.shape[:1], eps=0.0).relu()
    return functional.cross_entropy(x, labels)


def directions(
    weights: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    lr: Callable[[int], float] | None = None,
) -> Tensor:
    """Unit weights after each step, shape (steps, elements)."""
    path = []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = lr(step) if lr else group["lr"]
        optimizer.zero_grad()
        loss(weights, step).backward()
        optimizer.step()
        path.append(torch.cat([(w / w.norm()).detach().flatten() for w in weights]))
    return torch.stack(path)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_unit_of_the_weight_is_a_symmetry(nesterov: bool) -> None:
    """(w, η, λ, v) → (c·w, c²η, λ/c², v/c) leaves the trajectory as it is."""
    c, settings = 1.7, {"momentum": 0.9, "nesterov": nesterov}

    def path(scale: float, lr: float, decay: float) -> Tensor:
        weights = start(scale)
        return directions(weights, torch.optim.SGD(weights, lr=lr, weight_decay=decay, **settings))

    original = path(1.0, 0.1, 0.02)
    assert apart(original, path(c, c**2 * 0.1, 0.02 / c**2)) < 1e-10
    # controls: weight decay left alone; the right change for another family
    assert apart(original, path(c, c**2 * 0.1, 0.02)) > 1e-3
    assert apart(original, path(c, c * 0.1, 0.02 / c)) > 1e-3


@pytest.mark.parametrize("kind", [partial(torch.optim.AdamW, eps=0.0), lion_pytorch.Lion])
def test_the_symmetry_of_normalized_steps(kind: Callable[..., torch.optim.Optimizer]) -> None:
    """(w, η, λ) → (c·w, cη, λ/c) where the step does not know the gradient's size."""
    c = 1.7

    def path(scale: float, lr: float, decay: float) -> Tensor:
        weights = start(scale)
        return directions(weights, kind(weights, lr=lr, weight_decay=decay))

    original = path(1.0, 0.01, 0.2)
    assert apart(original, path(c, c * 0.01, 0.2 / c)) < 1e-10
    assert apart(original, path(c, c**2 * 0.01, 0.2 / c**2)) > 1e-3


def twin_without_decay(rule: SGDRule, buffer: bool) -> Tensor:
    """η·a^(−2t−1) in place of weight decay, the buffer at v₋₁ = (a−1)·w₀/(a·η) or at 0."""
    a, weights = decay_factor(rule), start()
    optimizer = torch.optim.SGD(weights, lr=rule.lr, momentum=rule.momentum)
    if buffer:
        for w in weights:
            first = (a - 1) * w.detach() / (a * rule.lr)
            optimizer.state[w]["momentum_buffer"] = first
    return directions(weights, optimizer, lambda t: rule.lr * a ** (-2 * t - 1))


def test_weight_decay_is_an_exponential_learning_rate() -> None:
    rule = SGDRule(0.1, 0.01, 0.9)
    weights = start()
    optimizer = torch.optim.SGD(
        weights, lr=rule.lr, momentum=rule.momentum, weight_decay=rule.weight_decay
    )
    original = directions(weights, optimizer)
    assert apart(original, twin_without_decay(rule, buffer=True)) < 1e-10
    # controls: a buffer that starts empty, and no growth of the learning rate at all
    assert apart(original, twin_without_decay(rule, buffer=False)) > 1e-2
    assert apart(original, twin_without_decay(rule.at(0.1, 1e-9), buffer=True)) > 1e-2
