"""RotationalUpdate makes of other people's optimizers what ours are."""

from __future__ import annotations

from typing import Any

import lion_pytorch
import pytest
import torch
from timm.optim import SGDW
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from smd_hooks.optim import (
    RotationalUpdate,
)
from smd_hooks.theory import (
    LionRule,
    SGDRule,
    UpdateRule,
    rotation_constant,
)
from tests.optim.cases import Gradients, distance, mixed_weights, norms
from tests.optim.pairs import LION, MAIN, PAIRS, SET, Make, trained

OPTIONS: list[dict[str, Any]] = [
    {"per_neuron": False, "zero_mean": False},
    {"schedule": "linear", "update_norm_decay": 0.5},
    {"angle": 0.03},
]


def difference(
    name: str, options: dict[str, Any], dtype: torch.dtype, steps: int = 100, update: bool = True
) -> float:
    make, case = PAIRS[name]
    mine, others = mixed_weights(dtype), mixed_weights(dtype)
    late = "fused" not in name
    if not late:
        # torch's fused forms take no weight that comes later than others (SGD), and mistake
        # elements of gradients that do not lie in memory as their weight does
        mine, others = mine[:-3], others[:-3]
    optimizer = make(mine)
    if update:
        RotationalUpdate(optimizer, **options)
    trained(optimizer, mine, steps, late)
    trained(case.build(others, **SET, **options), others, steps, late)
    return max(distance(a, b) for a, b in zip(mine, others, strict=True))


@pytest.mark.parametrize("name", PAIRS)
def test_it_is_the_rotational_optimizer(name: str) -> None:
    steps = 100 if name in MAIN else 30
    assert difference(name, {}, torch.float64, steps) <= 1e-11


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", MAIN)
def test_it_is_the_rotational_optimizer_with_all_options(
    name: str, options: dict[str, Any]
) -> None:
    assert difference(name, options, torch.float64, steps=30) <= 1e-11


@pytest.mark.parametrize("name", ["sgd", "adamw, fused"])
def test_it_is_the_rotational_optimizer_in_float32(name: str) -> None:
    assert difference(name, {}, torch.float32) <= 2e-6


@pytest.mark.parametrize("name", MAIN)
def test_control_without_it_they_differ(name: str) -> None:
    assert difference(name, {}, torch.float64, 30, update=False) > 0.1


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_not_turned_is_stepped_to_the_bit_as_ever(name: str) -> None:
    make, _ = PAIRS[name]
    lists = []
    for constrained in (True, False):
        turned, free, gain = (nn.Parameter(torch.ones(s).normal_()) for s in ((5, 4), (5, 4), 7))
        with torch.no_grad():
            for p in (turned, free, gain):
                p.copy_(torch.linspace(-1, 2, p.numel()).reshape(p.shape))
        groups = [{"params": [turned, gain]}, {"params": [free], "rotational": False}]
        optimizer = make(groups)
        if constrained:
            RotationalUpdate(optimizer)
        lists.append(trained(optimizer, [gain, free, turned]))
    ours, plain = lists
    assert torch.equal(ours[0], plain[0])
    assert torch.equal(ours[1], plain[1])
    assert not torch.allclose(ours[2], plain[2], rtol=1e-2)


# ------------------------------------------------------------------------------ angles

ANGLES: dict[str, tuple[Make, UpdateRule]] = {
    "sgd": (lambda p: SGD(p, momentum=0.9, **SET), SGDRule(1, 1, 0.9)),
    "nesterov": (
        lambda p: SGD(p, momentum=0.9, nesterov=True, **SET),
        SGDRule(1, 1, 0.9, nesterov=True),
    ),
    "sgdw": (lambda p: SGDW(p, momentum=0.9, **SET), SGDRule(1, 1, 0.9, decoupled=True)),
    "lion": (lambda p: lion_pytorch.Lion(p, **LION), LionRule(1, 1)),
}


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("name", ANGLES)
def test_on_random_gradients_the_angle_is_as_set_and_the_norm_stays(
    name: str, constrained: bool
) -> None:
    make, rule = ANGLES[name]
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(s)) for s in ((40, 60), (16, 8, 3, 3))]
    optimizer, gradients = make(weights), Gradients()
    if constrained:
        RotationalUpdate(optimizer)
    asked = rotation_constant(rule) * (SET["lr"] * SET["weight_decay"]) ** 0.5
    radius, squares = norms(weights[0], True), [0.0, 0.0]
    for step in range(250):
        gradients.give(weights)
        before = [w.detach().double().flatten(1) for w in weights]
        optimizer.step()
        for i, (w, b) in enumerate(zip(weights, before, strict=True)):
            after = w.detach().double().flatten(1)
            cosine = torch.nn.functional.cosine_similarity(after, b, dim=1)
            if step >= 100:
                squares[i] += float(torch.acos(cosine.clamp(max=1)).square().mean()) / 150
    ratios = [square**0.5 / asked for square in squares]
    kept = torch.allclose(norms(weights[0], True), radius, rtol=1e-6)
    if constrained:
        assert ratios == pytest.approx([1, 1], abs=0.01)
        assert kept
    else:  # at their first norms, which are no equilibrium
        assert all(abs(ratio - 1) > 0.05 for ratio in ratios)
        assert not kept


def test_a_step_far_below_rounding_still_gives_the_direction() -> None:
    """The paper's form, w' − w, has nothing left of it: a control."""
    turned = []
    for scale in (1.0, 1e-9):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(6, 50))
        optimizer = SGD([weight], lr=0.01 * scale, momentum=0.9)
        RotationalUpdate(optimizer, angle=0.01)
        for _ in range(10):
            weight.grad = torch.randn_like(weight)
            optimizer.step()
        turned.append(weight.detach())
    assert torch.allclose(*turned, rtol=0, atol=1e-6)
    plain = weight.detach().clone()
    assert torch.equal(plain - 1e-11 * torch.randn_like(plain), plain)


# ----------------------------------------------------------------------- training loops


def test_a_closure_sees_the_weights_as_they_are() -> None:
    ends = []
    for with_closure in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        optimizer = AdamW(model.parameters(), **SET)
        RotationalUpdate(optimizer)
        inputs = torch.randn(8, 4)

        def evaluate(
            model: nn.Module = model, optimizer: Optimizer = optimizer, inputs: Tensor = inputs
        ) -> Tensor:
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            return loss

        losses = []
        for _ in range(5):
            losses.append(optimizer.step(evaluate) if with_closure else evaluate())
            if not with_closure:
                optimizer.step()
        ends.append([*(p.detach() for p in model.parameters()), torch.stack(losses).detach()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
