"""What is not rotational is stepped as other people's optimizers do it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from timm.optim import Lion
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from smd_hooks.optim import LionA, LionAR, RotationalAdamW, RotationalLion, RotationalSGD
from tests.optim.cases import Case, Gradients, distance, mixed_weights

Peer = Callable[[list[nn.Parameter]], Optimizer]
PEERS: dict[str, tuple[Case, Peer]] = {
    "sgd": (
        Case(RotationalSGD),
        lambda w: SGD(w, lr=0.01, momentum=0.9, weight_decay=0.1),
    ),
    "sgd without momentum": (
        Case(RotationalSGD, {"momentum": 0.0}),
        lambda w: SGD(w, lr=0.01, weight_decay=0.1),
    ),
    "adamw": (
        Case(RotationalAdamW),
        lambda w: AdamW(w, lr=0.01, weight_decay=0.1),
    ),
    "adamw of other settings": (
        Case(RotationalAdamW, {"betas": (0.8, 0.95), "eps": 1e-3}),
        lambda w: AdamW(w, lr=0.01, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-3),
    ),
    "lion": (
        Case(RotationalLion),
        lambda w: Lion(w, lr=0.01, weight_decay=0.1, betas=(0.9, 0.99)),
    ),
    "lion of other settings": (
        Case(RotationalLion, {"betas": (0.95, 0.9)}),
        lambda w: Lion(w, lr=0.01, weight_decay=0.1, betas=(0.95, 0.9)),
    ),
    "lion a": (
        Case(LionAR, {"nesterov": True}),
        lambda w: LionA(w, lr=0.01, nesterov=True),
    ),
}


def difference(name: str, dtype: torch.dtype, rotational: bool, steps: int = 100) -> float:
    """Return by how much a weight differs at most after some steps of both."""
    case, peer = PEERS[name]
    mine, others = mixed_weights(dtype), mixed_weights(dtype)
    ours = case.build([{"params": mine, "rotational": rotational}])
    theirs, gradients = peer(others), Gradients()
    for _ in range(steps):
        gradients.give(mine, others)
        ours.step()
        theirs.step()
    return max(distance(a, b) for a, b in zip(mine, others, strict=True))


@pytest.mark.parametrize("name", PEERS)
def test_opted_out_weights_take_the_ordinary_update(name: str) -> None:
    assert difference(name, torch.float64, rotational=False) <= 1e-12


@pytest.mark.parametrize("name", PEERS)
def test_float32_updates_are_no_farther_from_float64_than_the_peer_is(name: str) -> None:
    """Peers round at every operation, and a Lion's sign may hang on that."""
    case, peer = PEERS[name]
    mine, others = mixed_weights(), mixed_weights()
    exact = [nn.Parameter(w.detach().double()) for w in others]
    ours = case.build([{"params": mine, "rotational": False}])
    theirs, truth, gradients = peer(others), peer(exact), Gradients()
    for _ in range(100):
        gradients.give(mine, others, exact)
        for optimizer in (ours, theirs, truth):
            optimizer.step()
    for a, b, c in zip(mine, others, exact, strict=True):
        assert distance(a, c) <= max(1e-6, distance(b, c)), tuple(a.shape)


@pytest.mark.parametrize("name", PEERS)
def test_control_rotational_weights_do_not(name: str) -> None:
    assert difference(name, torch.float64, rotational=True, steps=5) > 1e-3


RMS_OVER_LR = {1: 1.0, 2: 0.707, 5: 0.450, 10: 0.329, 20: 0.257, 50: 0.227, 400: 0.226}
"""Update size of AdamW with betas (.9, .95) under white gradients, in the number of steps."""


@pytest.mark.parametrize(
    "build",
    [
        lambda w: RotationalAdamW([{"params": w, "rotational": False}], 0.01, (0.9, 0.95)),
        lambda w: AdamW(w, 0.01, (0.9, 0.95), weight_decay=0.0),
    ],
    ids=["ours", "torch's"],
)
def test_early_updates_of_adamw_are_larger_than_late_ones(build: Peer) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.zeros(200, 400, dtype=torch.float64))
    optimizer = build([weight])
    for t in range(1, 401):
        weight.grad = torch.randn(200, 400, generator=generator).double()
        before = weight.detach().clone() if t in RMS_OVER_LR else None
        optimizer.step()
        if before is not None:
            rms = float((weight.detach() - before).square().mean().sqrt()) / 0.01
            assert rms == pytest.approx(RMS_OVER_LR[t], rel=5e-3), t


@pytest.mark.parametrize(("lr", "wanted"), [(4.8e-3, 0.24), (6e-4, 0.030)])
def test_the_first_step_of_adamw_is_huge_for_small_weights_and_lion_ars_is_not(
    lr: float, wanted: float
) -> None:
    """GPT-2's initial size .02, weight decay .1, no warmup."""
    angle = math.sqrt(2 * lr * 0.1 * 0.1 / 1.9)
    for kind, step in ((AdamW, wanted), (LionAR, angle)):
        weight = nn.Parameter(0.02 * torch.randn(200, 400, generator=torch.manual_seed(0)))
        before = weight.detach().clone()
        optimizer = kind([weight], lr, weight_decay=0.1)
        weight.grad = torch.randn(200, 400)
        optimizer.step()
        relative = float((weight.detach() - before).norm() / before.norm())
        assert relative == pytest.approx(step, rel=0.01)
    assert wanted / angle > 10
