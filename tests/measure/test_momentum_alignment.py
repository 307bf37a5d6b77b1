from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smd_hooks.measure.gradient_noise import GradientNoiseProbe
from smd_hooks.measure.momentum_alignment import cosine, momentum_alignments
from smd_hooks.optim import LionAR

RULES: dict[str, tuple[Callable[[Any], torch.optim.Optimizer], Callable[..., list[float]]]] = {
    # how a momentum m takes in a gradient g at a weight w
    "AdamW": (
        lambda p: torch.optim.AdamW(p, 0.01, (0.8, 0.9)),
        lambda m, g, w: [0.8 * a + 0.2 * b for a, b in zip(m, g, strict=True)],
    ),
    "heavy ball": (
        lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=0.5),
        lambda m, g, w: [0.9 * a + b + 0.5 * c for a, b, c in zip(m, g, w, strict=True)],
    ),
    "LionAR": (
        lambda p: LionAR(p, 0.01, beta=0.98, weight_decay=0.5),
        lambda m, g, w: [0.98 * a + 0.02 * b for a, b in zip(m, g, strict=True)],
    ),
}


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 4, bias=False)


def loss_of(model: nn.Module, seed: int) -> Tensor:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
    return (model(x) + 1).square().mean()


def plain_cosine(a: list[float], b: list[float]) -> float:
    product = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return product / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize("name", RULES)
def test_it_is_the_cosine_with_the_momentum_before_the_step(name: str) -> None:
    make, blend = RULES[name]
    model = network()
    optimizer = make(model.parameters())
    momentum = [0.0] * 20
    for step in range(6):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        assert model.weight.grad is not None
        gradient = model.weight.grad.double().flatten().tolist()
        weight = model.weight.detach().double().flatten().tolist()
        (measured,) = momentum_alignments(optimizer, [model.weight]).tolist()
        after = blend(momentum, gradient, weight)
        if step == 0:
            assert math.isnan(measured)
        else:
            assert measured == pytest.approx(plain_cosine(gradient, momentum), abs=1e-5)
            # control: the momentum that has this gradient in it, as hooks after a step see it
            assert abs(plain_cosine(gradient, after) - measured) > 1e-3
        momentum = after
        optimizer.step()


def test_gradients_that_repeat_are_aligned_and_those_that_turn_round_oppose() -> None:
    weight = nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.AdamW([weight], 0.01)
    direction = torch.arange(6.0).reshape(2, 3) - 2
    found = []
    for sign in (1, 1, -1):
        weight.grad = sign * direction
        found += momentum_alignments(optimizer, [weight]).tolist()
        optimizer.step()
    assert found[1:] == pytest.approx([1.0, -1.0])


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.01),
        lambda p: torch.optim.AdamW(p, 0.01, (0.0, 0.9)),
        lambda p: torch.optim.Adagrad(p, 0.01),
    ],
    ids=["no momentum", "nothing kept", "not known"],
)
def test_where_there_is_no_momentum_there_is_no_alignment(
    make: Callable[[Any], torch.optim.Optimizer],
) -> None:
    model = network()
    optimizer = make(model.parameters())
    for step in range(2):
        loss_of(model, step).backward()
        assert math.isnan(momentum_alignments(optimizer, [model.weight]).item())
        optimizer.step()


def test_what_is_not_trained_has_none() -> None:
    model = nn.ModuleList([network(), network()])
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for step in range(2):
        optimizer.zero_grad()
        loss_of(model[1], step).backward()
        found = momentum_alignments(optimizer, [m.weight for m in model]).tolist()  # type: ignore[misc]
        optimizer.step()
    assert math.isnan(found[0])
    assert abs(found[1]) <= 1


def test_sums_are_exact_where_halves_are_not() -> None:
    a = torch.full((50_000,), 0.1, dtype=torch.bfloat16)
    assert cosine(a, a).item() == pytest.approx(1.0, abs=1e-2)
    b = torch.full((50_000,), 0.1)
    assert cosine(b, b).item() == pytest.approx(1.0, abs=1e-6)
    assert math.isnan(cosine(b, torch.zeros_like(b)).item())


def test_the_probe_tells_it_beside_the_noise_and_whatever_clips_or_scales() -> None:
    told = []
    for clip, scale in ((math.inf, 1.0), (1e-3, 64.0)):
        model = network()
        # at frozen weights, so that both loops see the same gradients
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        probe = GradientNoiseProbe(optimizer, model.named_parameters(), "*", 1, batch_size=3)
        reference = []
        for step in range(4):
            for half in range(2):
                (loss_of(model, 2 * step + half) / 2 * scale).backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            reference += momentum_alignments(optimizer, [model.weight]).tolist()
            optimizer.step()
            optimizer.zero_grad()
        told.append(probe.drain()["gradient_momentum_alignment"])
        assert told[-1] == pytest.approx(reference, nan_ok=True)
        assert math.isnan(told[-1][0])
    assert (abs(told[0][1:]) < 1).all()
