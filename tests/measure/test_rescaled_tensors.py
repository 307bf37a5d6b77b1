"""What is multiplied when a learning rate falls, and that the function stays."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from smd_hooks.measure.rescaled_tensors import rescale, statistics_of
from smd_hooks.measure.rescaling import (
    EquilibriumRescaling,
)
from tests.measure.followed_nets import (
    OPTIMIZERS,
    WEIGHTS,
    Net,
    batch,
    factor,
    followed,
    set_lr,
    train,
)


def test_powers_of_a_factor() -> None:
    tensors = [torch.full((2, 2), 3.0) for _ in range(4)]
    rescale(tensors, (1, 2, -1, -2), (0.5,) * 4)
    assert [float(t[0, 0]) for t in tensors] == [1.5, 0.75, 6.0, 12.0]
    rescale([], [], [])


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_next_step_turns_the_weight_as_if_all_had_always_been_so(kind: str) -> None:
    """A net at another scale, with all its past, takes the same steps: lr·c^(1+p), λ/c^(1+p)."""
    twins = []
    for c in (1.0, 0.5):
        model = Net().double()
        model.norm.eps = 1e-30
        model.conv.weight.data *= c
        others = [p for p in model.parameters() if p is not model.conv.weight]
        optimizer = OPTIMIZERS[kind]([{"params": [model.conv.weight]}, {"params": others}])
        power = -1 / math.log(factor(optimizer, math.e)) / 2  # 1 + p
        for group in optimizer.param_groups:
            if "eps" in group:
                group["eps"] = 0.0
        moved = optimizer.param_groups[0]
        moved["lr"], moved["weight_decay"] = 0.1 * c**power, 0.01 / c**power
        train(model, optimizer, 3)
        twins.append((model, optimizer, power))
    (model, optimizer, power), (smaller, other, _) = twins
    rescaling = EquilibriumRescaling(optimizer, model, WEIGHTS)
    rescaling.follow(3)
    optimizer.param_groups[0]["lr"] = 0.1 * 0.5 ** (2 * power)
    assert rescaling.follow(3) == {"conv.weight": pytest.approx(0.5)}
    assert torch.allclose(model.conv.weight, smaller.conv.weight, rtol=1e-9)
    ours, theirs = optimizer.state[model.conv.weight], other.state[smaller.conv.weight]
    for key, value in theirs.items():
        if torch.is_tensor(value):
            assert torch.allclose(ours[key], value, rtol=1e-9), key
    for (name, mine), (_, theirs_too) in zip(
        model.named_buffers(), smaller.named_buffers(), strict=True
    ):
        if name != "norm.num_batches_tracked":
            # they began at 0 and 1, which do not scale
            start = float(name.endswith("var")) * 0.9**3
            scale = 0.25 if start else 0.5
            assert torch.allclose(mine - start * scale, theirs_too - start, rtol=1e-9)


@pytest.mark.parametrize("train_mode", [True, False])
def test_the_function_does_not_change(train_mode: bool) -> None:
    model, optimizer, rescaling = followed(model=Net().double())
    model.train(train_mode)
    model.norm.momentum = 0.0
    before = model(batch().double())
    set_lr(optimizer, 0.01)
    (moved,) = rescaling.follow(1).values()
    model.norm.eps *= moved**2  # eps is not part of what is rescaled
    assert torch.allclose(model(batch().double()), before, rtol=1e-9)


def test_control_statistics_left_alone_change_what_eval_mode_computes() -> None:
    model, optimizer, rescaling = followed(model=Net().double(), steps=20)
    before = model.eval()(batch().double())
    statistics = [model.norm.running_mean.clone(), model.norm.running_var.clone()]
    set_lr(optimizer, 0.001)
    rescaling.follow(20)
    assert torch.allclose(model(batch().double()), before, atol=1e-3)
    model.norm.running_mean.copy_(statistics[0])
    model.norm.running_var.copy_(statistics[1])
    assert not torch.allclose(model(batch().double()), before, atol=1e-1)


def test_statistics_behind_a_bias_are_left_to_catch_up() -> None:
    norm = nn.BatchNorm2d(8)
    assert statistics_of(nn.Conv2d(3, 8, 3), norm) == []
    assert statistics_of(nn.Conv2d(3, 8, 3, bias=False), nn.GroupNorm(2, 8)) == []
    powers = [power for _, power in statistics_of(nn.Conv2d(3, 8, 3, bias=False), norm)]
    assert powers == [1, 2]


def test_averaged_weights_and_their_statistics_go_along() -> None:
    model = Net()
    average = copy.deepcopy(model)
    optimizer = OPTIMIZERS["heavy ball"](model.parameters())
    train(model, optimizer)
    rescaling = EquilibriumRescaling(optimizer, model, WEIGHTS, [average])
    rescaling.follow(1)
    before = copy.deepcopy(average)
    set_lr(optimizer, 0.01)
    (moved,) = rescaling.follow(1).values()
    assert torch.equal(average.conv.weight, before.conv.weight * moved)
    assert torch.equal(average.norm.running_var, before.norm.running_var * moved**2)
    assert torch.equal(average.head.weight, before.head.weight)


def test_a_norm_that_two_weights_feed_keeps_its_statistics() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(3, 4, 1, bias=False)
            self.norm = nn.BatchNorm2d(8)

    model = Two()
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    rescaling = EquilibriumRescaling(
        optimizer, model, {"a.weight": ("norm",), "b.weight": ("norm",)}
    )
    rescaling.follow(0)
    set_lr(optimizer, 0.05)
    assert len(rescaling.follow(0)) == 2
    assert torch.equal(model.norm.running_var, torch.ones(8))
