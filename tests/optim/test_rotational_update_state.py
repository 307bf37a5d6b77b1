"""What RotationalUpdate remembers, through skipped and failed steps and checkpoints."""

from __future__ import annotations

import sys
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from smd_hooks.optim import (
    RotationalUpdate,
)
from tests.measure.host_reads import NoHostRead
from tests.optim.cases import Gradients, mixed_weights, norms
from tests.optim.pairs import PAIRS, SET


@pytest.mark.parametrize(
    ("name", "overflows"),
    # torch's fused SGD has no momentum buffer worth the name if its first step is skipped
    [("sgd", (0, 4)), ("sgd, fused", (4,)), ("adamw, fused", (0, 4))],
)
def test_a_step_that_a_gradient_scaler_skips_changes_nothing(
    name: str, overflows: tuple[int, ...]
) -> None:
    ends = []
    for scaled in (True, False):
        weight, start = nn.Parameter(torch.ones(4, 5)), torch.randn(4, 5, generator=_seeded(0))
        weight.data.copy_(start)
        optimizer = PAIRS[name][0]([weight])
        RotationalUpdate(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        batches = torch.randn(8, 4, 5, generator=_seeded(1))
        for i, batch in enumerate(batches):
            overflow = i in overflows
            if overflow and not scaled:
                continue
            optimizer.zero_grad()
            loss = (weight * batch).sum() * (float("inf") if overflow else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if i == 0:
                assert torch.equal(weight.detach(), start) is overflow
        ends.append((weight.detach(), *_remembered(optimizer, weight)))
    for a, b in zip(*ends, strict=True):
        assert torch.allclose(a, b, rtol=1e-6)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _remembered(optimizer: Optimizer, weight: Tensor) -> list[Tensor]:
    state = optimizer.state[weight]
    return [state[f"rotational_{name}"] for name in ("step", "radius", "update_norm")]


def test_a_learning_rate_of_0_changes_nothing() -> None:
    weight = nn.Parameter(torch.randn(4, 5))
    optimizer = SGD([weight], momentum=0.9, **{**SET, "lr": 0.0})
    RotationalUpdate(optimizer, schedule="linear", angle=0.1)
    start = weight.detach().clone()
    weight.grad = torch.randn(4, 5)
    optimizer.step()
    assert torch.equal(weight.detach(), start)
    assert float(_remembered(optimizer, weight)[0]) == 0


def test_nothing_is_read_back_from_the_device() -> None:
    lr = torch.tensor(0.01)
    weights = [nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(3, 2, 2))]
    optimizer = SGD(weights, lr=lr, momentum=0.9, weight_decay=0.1)
    update = RotationalUpdate(optimizer)
    for value in (0.01, 0.02):
        lr.fill_(value)
        for w in weights:
            w.grad = torch.randn_like(w)
        optimizer.found_inf = torch.zeros(())
        with NoHostRead():
            update._begin()
        with torch.no_grad():
            for stand_in in optimizer.param_groups[0]["params"]:
                stand_in.sub_(stand_in.grad * lr)
        with NoHostRead():
            update._end()
        del optimizer.found_inf
    assert [float(_remembered(optimizer, w)[0]) for w in weights] == [2, 2]


def test_a_step_that_fails_leaves_the_weights_and_mends_the_optimizer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = [nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(3))]
    optimizer = SGD(weights, momentum=0.9, **SET)
    RotationalUpdate(optimizer)

    def train() -> None:
        for w in weights:
            w.grad = torch.ones_like(w)
        optimizer.step()

    train()
    before = [w.detach().clone() for w in weights]
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["torch.optim.sgd"], "sgd", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train()
    assert all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))
    assert set(optimizer.state_dict()["state"]) == {0, 1}
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], weights, strict=True))
    train()
    assert set(optimizer.state) == set(weights)


def test_weights_frozen_added_and_taken_out_mid_run() -> None:
    first, late = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(3, 6))
    optimizer = SGD([first], momentum=0.9, **SET)
    RotationalUpdate(optimizer)
    for step in range(6):
        if step == 2:
            optimizer.add_param_group({"params": [late], "angle": 0.2})
        first.grad = None if step == 3 else torch.randn_like(first)
        late.grad = torch.randn_like(late)
        before = first.detach().clone(), late.detach().clone()
        optimizer.step()
        moved = [not torch.equal(a, b) for a, b in zip(before, (first, late), strict=True)]
        assert moved == [step != 3, step >= 2]
    assert [float(_remembered(optimizer, w)[0]) for w in (first, late)] == [5, 4]


# -------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("name", ["sgd", "adamw", "adamw, fused", "lion"])
def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(name: str) -> None:
    make, _ = PAIRS[name]
    weights, gradients = mixed_weights()[:-3], Gradients()
    optimizer = make(weights)
    RotationalUpdate(optimizer, schedule="linear")
    for _ in range(7):
        gradients.give(weights)
        optimizer.step()
    resumed = [nn.Parameter(w.detach().clone()) for w in weights]
    other = make(resumed)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    RotationalUpdate(other, schedule="linear")
    for _ in range(7):
        gradients.give(weights, resumed)
        optimizer.step()
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))


def test_a_checkpoint_goes_with_and_without_it() -> None:
    weight = nn.Parameter(torch.randn(4, 5))
    plain, constrained = AdamW([weight], **SET), AdamW([weight], **SET)
    update = RotationalUpdate(constrained)
    for source, target in ((constrained, plain), (plain, constrained)):
        weight.grad = torch.randn(4, 5)
        source.step()
        target.load_state_dict(deepcopy(source.state_dict()))
        weight.grad = torch.randn(4, 5)
        target.step()
    update.detach()
    update.detach()
    norm = norms(weight, True)
    constrained.step()
    assert not torch.allclose(norms(weight, True), norm, rtol=1e-5)
