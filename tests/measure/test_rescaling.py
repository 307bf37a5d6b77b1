"""When weights are rescaled, by how much, and when not."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from smd_hooks.measure.probe import RESCALE_KEY
from smd_hooks.measure.rescaling import (
    EPS_SHARE,
    FINEST,
    LR_KEY,
    SETTLED,
    EquilibriumRescaling,
    rules_to_follow,
)
from smd_hooks.optim import LionAR
from smd_hooks.theory import (
    LionRule,
    NoPrediction,
    UpdateRule,
    register_rule,
    relaxation_time,
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
from tests.measure.host_reads import NoHostRead


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_fall_is_followed_once(kind: str) -> None:
    model, optimizer, rescaling = followed(kind)
    before = model.conv.weight.detach().clone()
    set_lr(optimizer, 0.05)
    expected = factor(optimizer, 2)
    assert rescaling.follow(1) == {"conv.weight": pytest.approx(expected)}
    assert rescaling.follow(2) == {}
    assert torch.equal(model.conv.weight, before * expected)
    assert optimizer.state[model.conv.weight][RESCALE_KEY] == pytest.approx(expected)
    assert RESCALE_KEY not in optimizer.state[model.head.weight]


@pytest.mark.parametrize("kind", ["heavy ball", "AdamW", "Lion"])
def test_a_thousand_small_falls_are_one_large_one(kind: str) -> None:
    model, optimizer, rescaling = followed(kind, Net().double())
    before, moves = model.conv.weight.detach().clone(), 0
    for step in range(1001):
        set_lr(optimizer, 0.1 * 0.2 ** (step / 1000))
        moves += bool(rescaling.follow(1))
    expected = factor(optimizer, 5)
    assert float((model.conv.weight.detach() / before).mean()) == pytest.approx(
        expected, rel=FINEST
    )
    # a pass over all weights at each of a million steps would cost more than it brings
    assert 0.5 < moves / (-math.log(expected) / FINEST) <= 1


def test_most_steps_read_nothing_from_the_device() -> None:
    _, optimizer, rescaling = followed()
    reads = 0
    for step in range(1001):
        set_lr(optimizer, 0.1 * 0.2 ** (step / 1000))
        before = rescaling._variances.read
        rescaling._variances.read = lambda before=before: _count(before)  # type: ignore
        counted.clear()
        with NoHostRead():
            rescaling.follow(1)
        reads += len(counted)
        rescaling._variances.read = before  # type: ignore
    # one for each 5 % that weights are smaller
    assert reads == math.ceil(math.log(factor(optimizer, 5)) / math.log(0.95))


counted: list[int] = []


def _count(read: Callable[[], Any]) -> Any:
    counted.append(1)
    return read()


def test_a_learning_rate_of_0_is_no_learning_rate() -> None:
    model, optimizer, rescaling = followed()
    before = model.conv.weight.detach().clone()
    set_lr(optimizer, 0.0)
    assert rescaling.follow(1) == {}
    set_lr(optimizer, 0.05)  # a cycle begins anew
    assert rescaling.follow(2) == {"conv.weight": pytest.approx(2**-0.25)}
    assert torch.equal(model.conv.weight, before * 2**-0.25)


@pytest.mark.parametrize("start", [0.0, 1e-6, 0.01])
def test_a_warmup_at_the_start_leaves_weights_as_they_were_initialised(start: float) -> None:
    model = Net()
    optimizer = OPTIMIZERS["heavy ball"](model.parameters())
    set_lr(optimizer, start)
    train(model, optimizer)
    rescaling = EquilibriumRescaling(optimizer, model, WEIGHTS)
    for step in range(1, 11):
        set_lr(optimizer, start + (0.1 - start) * step / 10)
        assert rescaling.follow(step) == {}
    set_lr(optimizer, 0.05)  # its fall is followed from the top
    assert rescaling.follow(12) == {"conv.weight": pytest.approx(2**-0.25)}
    set_lr(optimizer, 0.2)  # what the fall took comes back, and no more
    assert rescaling.follow(13) == {"conv.weight": pytest.approx(2**0.25)}
    set_lr(optimizer, 0.1)
    assert rescaling.follow(14) == {"conv.weight": pytest.approx(2**-0.25)}


def test_a_rise_is_followed_once_weights_had_the_time_to_settle() -> None:
    model, optimizer, rescaling = followed()
    rule = UpdateRule.from_optimizer(optimizer, optimizer.param_groups[0])
    settled = math.ceil(1 + SETTLED * relaxation_time(rule))
    set_lr(optimizer, 0.2)
    assert rescaling.follow(settled + 1) == {"conv.weight": pytest.approx(2**0.25)}
    early = EquilibriumRescaling(optimizer, model, WEIGHTS)
    optimizer.state[model.conv.weight].pop(RESCALE_KEY)
    early.follow(0)
    set_lr(optimizer, 0.3)
    assert early.follow(round(0.9 * settled / 2)) == {}


def test_groups_go_their_own_ways() -> None:
    model = nn.Sequential()
    for name in ("a", "b", "c", "d"):
        model.add_module(name, nn.Linear(4, 4, bias=False))
    parameters = dict(model.named_parameters())
    groups = [
        {"params": [parameters["a.weight"]]},
        {"params": [parameters["b.weight"]], "lr": 0.01},
        {"params": [parameters["c.weight"]], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, 0.1, weight_decay=0.01)  # d is frozen
    rescaling = EquilibriumRescaling(optimizer, model, dict.fromkeys(parameters, ()))
    rescaling.follow(0)
    optimizer.param_groups[1]["lr"] = 0.005
    assert set(rescaling.follow(0)) == {"b.weight"}
    for group in optimizer.param_groups:
        group["lr"] /= 10
    assert rescaling.follow(0) == pytest.approx({"a.weight": 10**-0.25, "b.weight": 10**-0.25})


def test_a_learning_rate_that_is_a_tensor() -> None:
    model = Net()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    train(model, optimizer)
    rescaling = EquilibriumRescaling(optimizer, model, WEIGHTS)
    rescaling.follow(1)
    rate.fill_(0.05)
    assert rescaling.follow(1) == {"conv.weight": pytest.approx(2**-0.5)}


def test_a_weight_that_never_stepped_waits() -> None:
    model = Net()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    rescaling = EquilibriumRescaling(optimizer, model, WEIGHTS)
    rescaling.follow(0)
    set_lr(optimizer, 0.05)
    rescaling.follow(0)
    train(model, optimizer)  # would fail if the optimizer found a state that is not its own
    rescaling.follow(1)
    set_lr(optimizer, 0.01)
    assert rescaling.follow(1) == {"conv.weight": pytest.approx(5**-0.5)}


def test_low_precision_waits_for_what_it_can_hold() -> None:
    model, optimizer, rescaling = followed(model=Net().bfloat16())
    before = model.conv.weight.detach().double()
    for step in range(1001):
        set_lr(optimizer, 0.1 * 0.2 ** (step / 1000))
        rescaling.follow(1)
    coarsest = 2 * torch.finfo(torch.bfloat16).eps
    ratio = float(model.conv.weight.detach().double().norm() / before.norm())
    assert ratio == pytest.approx(5**-0.25, rel=1.5 * coarsest)


# --------------------------------------------------------------------- how far, and for whom


def test_weights_fall_to_where_eps_matters_and_no_further() -> None:
    model, optimizer, rescaling = followed()
    least = 0.7
    model.norm.eps = EPS_SHARE * least**2 * float(model.norm.running_var.median())
    for step in range(1001):
        set_lr(optimizer, 0.1 * 1e-4 ** (step / 1000))
        rescaling.follow(1)
    assert optimizer.state[model.conv.weight][RESCALE_KEY] == pytest.approx(least, rel=3e-3)
    assert rescaling.held == ["conv.weight"]
    assert optimizer.state[model.conv.weight][LR_KEY] == pytest.approx(0.1 * least**4, rel=1e-2)
    set_lr(optimizer, 0.1)
    rescaling.follow(1)
    assert optimizer.state[model.conv.weight][RESCALE_KEY] == pytest.approx(1)
    assert rescaling.held == []


def test_each_fall_looks_at_the_variances_of_its_time() -> None:
    model, optimizer, rescaling = followed()
    for variance, moves in ((1.0, True), (1e-9, False), (1.0, True)):
        model.norm.running_var.fill_(variance)
        set_lr(optimizer, 0.05)
        assert bool(rescaling.follow(1)) is moves
        set_lr(optimizer, 0.1)
        assert bool(rescaling.follow(1)) is moves


@pytest.mark.parametrize(("share", "moves"), [(EPS_SHARE / 2, True), (EPS_SHARE * 2, False)])
def test_a_norm_without_statistics_is_asked_first(share: float, moves: bool) -> None:
    model, optimizer, rescaling = followed("AdamW", Net(nn.GroupNorm(2, 8)))
    variance = model.conv(batch()).detach().reshape(16, 2, -1).var(2, correction=0).median()
    model.norm.eps = share * float(variance) * 0.1
    set_lr(optimizer, 0.01)
    assert rescaling.follow(1) == {}
    model(batch())
    expected = {"conv.weight": pytest.approx(10**-0.5)} if moves else {}
    assert rescaling.follow(2) == expected
    assert rescaling.held == ([] if moves else ["conv.weight"])
    assert rescaling.follow(3) == {}
    rescaling.close()
    assert not model.norm._forward_pre_hooks


def test_what_no_factor_keeps_in_equilibrium_is_refused() -> None:
    parameters = list(Net().parameters())
    with pytest.raises(NoPrediction, match="Adam with L2"):
        rules_to_follow(torch.optim.Adam(parameters, 0.1, weight_decay=0.01))
    with pytest.raises(NoPrediction, match="RMSprop"):
        rules_to_follow(torch.optim.RMSprop(parameters, 0.1, weight_decay=0.01))
    with pytest.raises(NoPrediction, match="keeps its norm"):
        rules_to_follow(LionAR(parameters, 0.1, weight_decay=0.01))
    assert rules_to_follow(torch.optim.Adam(parameters, 0.1)) == [None]


def test_an_optimizer_of_one_s_own_is_followed_by_the_weights_alone() -> None:
    class Signum(torch.optim.SGD):
        pass

    register_rule(Signum, lambda g: LionRule(g["lr"], g["weight_decay"], 0.9, 0.9))
    model = Net()
    optimizer = Signum(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    train(model, optimizer)
    rescaling = EquilibriumRescaling(optimizer, model, WEIGHTS)
    rescaling.follow(1)
    buffer = optimizer.state[model.conv.weight]["momentum_buffer"].clone()
    set_lr(optimizer, 0.025)
    assert rescaling.follow(1) == {"conv.weight": pytest.approx(0.5)}
    assert torch.equal(optimizer.state[model.conv.weight]["momentum_buffer"], buffer)


@pytest.mark.parametrize("kind", ["heavy ball", "AdamW"])
def test_what_is_remembered_makes_a_resume_the_same_to_the_bit(kind: str) -> None:
    model, optimizer, rescaling = followed(kind)
    model.norm.eps = EPS_SHARE * 0.8**2 * float(model.norm.running_var.median())

    def go_on(model: nn.Module, optimizer: Optimizer, it: Any, steps: range) -> Tensor:
        for step in steps:
            set_lr(optimizer, 0.05 + 0.0499 * math.cos(step / 15))
            it.follow(step)
            train(model, optimizer)
        return model.conv.weight.detach()  # type: ignore[union-attr,return-value]

    go_on(model, optimizer, rescaling, range(1, 21))
    twin = copy.deepcopy(model)
    other = OPTIMIZERS[kind](twin.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    memory = copy.deepcopy(rescaling.memory())
    again = EquilibriumRescaling(other, twin, memory["weights"], memory=memory)
    expected = go_on(model, optimizer, rescaling, range(21, 120))
    assert torch.equal(go_on(twin, other, again, range(21, 120)), expected)
    assert again.memory() == rescaling.memory()
