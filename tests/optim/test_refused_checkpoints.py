"""Checkpoints that do not fit the optimizer or its weights are refused in one line."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from timm.optim import Lion
from torch import nn

from smd_hooks.optim import LionA, LionAR, RotationalAdamW, RotationalLion, RotationalSGD
from smd_hooks.optim.sphere_optimizer import SphereOptimizer
from tests.optim.cases import PLAIN, TURNING, Case, Gradients, made, name_of, norms, stepped
from tests.optim.test_checkpoints import copies, on_disk, same_state

each = pytest.mark.parametrize("case", PLAIN, ids=name_of)
each_turning = pytest.mark.parametrize("case", TURNING, ids=name_of)


def refused(optimizer: SphereOptimizer, state: Any, message: str) -> None:
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=message) as error:
        optimizer.load_state_dict(state)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(type(optimizer).__name__)
    assert str(optimizer.state_dict()) == str(before)


@each
def test_another_order_of_groups_is_refused(case: Case) -> None:
    def groups(*shapes: tuple[int, ...]) -> list[Any]:
        return [{"params": [made(*shape)]} for shape in shapes]

    parts = groups((3, 4), (5, 6))
    optimizer = stepped(case, [group["params"][0] for group in parts])
    state = optimizer.state_dict()
    apart = case.build(groups((3, 4), (5, 6)))
    refused(apart, state, "groups of 2 parameters, the optimizer of 1, 1: it was")
    refused(case.build([made(5, 6), made(3, 4)]), state, r"number 0 .*shape \(3, 4\).*\(5, 6\)")
    refused(case.build([made(3, 4)]), state, "groups of 2 parameters, the optimizer of 1")


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (Case(LionAR), Case(RotationalSGD)),
        (Case(RotationalSGD), Case(LionA)),
        (Case(RotationalAdamW), Case(LionAR)),
        (Case(LionAR), Case(RotationalLion)),
        (Case(RotationalLion), Case(LionA)),
    ],
    ids=name_of,
)
def test_the_state_of_another_optimizer_is_refused(own: Case, other: Case) -> None:
    state = stepped(other, [made(3, 4)]).state_dict()
    refused(own.build([made(3, 4)]), state, "made by another optimizer; start without its state")


@pytest.mark.parametrize(
    ("own", "build"),
    [
        (Case(RotationalSGD), lambda w: torch.optim.SGD(w, 0.1, momentum=0.9)),
        (Case(RotationalAdamW), lambda w: torch.optim.SGD(w, 0.1, momentum=0.9)),
        (Case(RotationalLion), lambda w: Lion(w, 0.1)),
        (Case(LionAR), lambda w: Lion(w, 0.1)),
        (Case(LionAR), lambda w: torch.optim.AdamW(w, 0.1)),
    ],
)
def test_the_state_of_others_optimizers_is_refused(own: Case, build: Any) -> None:
    w = made(3, 4)
    other = build([w])
    w.grad = torch.ones_like(w)
    other.step()
    refused(
        own.build([w]), other.state_dict(), "made by another optimizer; start without its state"
    )


def test_a_run_may_go_on_rotational_with_adamws_own_state() -> None:
    w = made(3, 4)
    other = torch.optim.AdamW([w], 0.01, weight_decay=0.1)
    w.grad = torch.ones_like(w)
    other.step()
    optimizer = RotationalAdamW([w], 0.01, weight_decay=0.1)
    optimizer.load_state_dict(other.state_dict())
    start = norms(w, True)
    for _ in range(3):
        w.grad = torch.randn_like(w)
        optimizer.step()
    assert torch.allclose(norms(w, True), start, rtol=1e-6)
    assert float(optimizer.state[w]["step"]) == 4


@each_turning
@pytest.mark.parametrize("per_neuron", [True, False])
def test_swapped_layers_of_one_shape_are_refused_at_the_first_step(
    case: Case, per_neuron: bool
) -> None:
    weights = [made(5, 9), nn.Parameter(2 * made(5, 9, seed=1).detach())]
    optimizer = stepped(case, weights, per_neuron=per_neuron)
    swapped = copies(weights[::-1])
    loaded = case.build(swapped, per_neuron=per_neuron)
    loaded.load_state_dict(optimizer.state_dict())
    before = [w.detach().clone() for w in swapped]
    for _ in range(2):
        Gradients().give(swapped)
        with pytest.raises(RuntimeError, match=rf"^{case.kind.__name__}: a weight's norm differs"):
            loaded.step()
    assert all(torch.equal(w, b) for w, b in zip(swapped, before, strict=True))


@each
def test_parameters_are_told_apart_by_name_where_they_have_one(case: Case) -> None:
    def named(*names: str) -> list[tuple[str, nn.Parameter]]:
        return [(name, made(3, 4, seed=i)) for i, name in enumerate(names)]

    pairs = named("conv.weight", "fc.weight")
    optimizer = case.build(pairs)
    Gradients().give([w for _, w in pairs])
    optimizer.step()
    state = on_disk(optimizer.state_dict())
    refused(
        case.build(named("fc.weight", "conv.weight")),
        state,
        "has conv.weight in place of fc.weight: it was made with",
    )
    for prefix in ("", "module.", "_orig_mod."):
        wrapped = case.build(named(f"{prefix}conv.weight", f"{prefix}fc.weight"))
        wrapped.load_state_dict(state)
        assert same_state(optimizer, wrapped)
