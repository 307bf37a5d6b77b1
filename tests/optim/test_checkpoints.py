"""State that is saved, copied, loaded and refused; a stopped run goes on bit by bit."""

from __future__ import annotations

import copy
import io
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from smd_hooks.optim import LionAR, RotationalSGD
from smd_hooks.optim.sphere_optimizer import SphereOptimizer
from tests.optim.cases import (
    CASES,
    PLAIN,
    TURNING,
    Case,
    Gradients,
    made,
    mixed_weights,
    name_of,
    stepped,
)

each = pytest.mark.parametrize("case", PLAIN, ids=name_of)
each_turning = pytest.mark.parametrize("case", TURNING, ids=name_of)

pytestmark = pytest.mark.filterwarnings("ignore:.*rounding turns them:UserWarning")


def on_disk(value: Any) -> Any:
    """Save and load as a careful user does."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def copies(weights: list[nn.Parameter]) -> list[nn.Parameter]:
    return [nn.Parameter(w.detach().clone()) for w in weights]


def same_bits(a: list[nn.Parameter], b: list[nn.Parameter]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def same_state(one: SphereOptimizer, other: SphereOptimizer) -> bool:
    (a, b) = (optimizer.state_dict()["state"] for optimizer in (one, other))
    return a.keys() == b.keys() and all(
        a[key].keys() == b[key].keys()
        and all(
            torch.equal(a[key][name], b[key][name]) and a[key][name].dtype == b[key][name].dtype
            for name in a[key]
        )
        for key in a
    )


# ----------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@each
def test_a_state_dict_comes_back_bit_by_bit(case: Case, dtype: torch.dtype) -> None:
    weights = mixed_weights(dtype)
    optimizer = stepped(case, weights)
    state = on_disk(optimizer.state_dict())
    values = [value for entry in state["state"].values() for value in entry.values()]
    assert values
    assert all(isinstance(value, Tensor) for value in values)
    others = copies(weights)
    loaded = case.build(others)
    loaded.load_state_dict(state)
    assert same_state(optimizer, loaded)
    gradients = Gradients(7)
    for _ in range(3):
        gradients.give(weights, others)
        optimizer.step()
        loaded.step()
    assert same_bits(weights, others)
    assert same_state(optimizer, loaded)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(case=st.sampled_from(CASES), stop=st.integers(0, 12), after=st.integers(0, 6))
def test_a_stopped_run_goes_on_bit_by_bit(case: Case, stop: int, after: int) -> None:
    """Weights and state of a checkpoint, whatever happened to the run after it was written."""

    def start() -> tuple[list[nn.Parameter], SphereOptimizer, Any, Gradients]:
        weights = mixed_weights()
        optimizer = case.build(weights)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        return weights, optimizer, schedule, Gradients()

    def go(weights: Any, optimizer: Any, schedule: Any, gradients: Gradients, steps: int) -> None:
        for _ in range(steps):
            gradients.give(weights)
            optimizer.step()
            schedule.step()

    whole = start()
    go(*whole, 18)
    weights, optimizer, schedule, gradients = start()
    go(weights, optimizer, schedule, gradients, stop)
    saved = on_disk([weights, optimizer.state_dict(), schedule.state_dict()])
    randomness = gradients._generator.get_state()
    go(weights, optimizer, schedule, gradients, after)

    resumed, optimizer, schedule, gradients = start()
    optimizer.load_state_dict(saved[1])
    schedule.load_state_dict(saved[2])
    with torch.no_grad():
        for weight, value in zip(resumed, saved[0], strict=True):
            weight.copy_(value)
    gradients._generator.set_state(randomness)
    go(resumed, optimizer, schedule, gradients, 18 - stop)
    assert same_bits(resumed, whole[0])
    assert same_state(optimizer, whole[1])


@each_turning
def test_control_a_run_that_loses_its_state_goes_elsewhere(case: Case) -> None:
    weights = [made(5, 9)]
    optimizer = stepped(case, weights, 6)
    others = copies(weights)
    fresh = case.build(others)
    gradients = Gradients(7)
    gradients.give(weights, others)
    optimizer.step()
    fresh.step()
    assert not torch.allclose(weights[0], others[0], rtol=1e-4)


@each
def test_copies_and_pickles_go_on_alike(case: Case) -> None:
    weights = mixed_weights()
    optimizer = stepped(case, weights)
    for made_again in (copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))):
        (others, other) = made_again((weights, optimizer))
        assert same_state(optimizer, other)
        mine = copies(weights)
        control = case.build(mine)
        control.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        gradients = Gradients(9)
        for _ in range(2):
            gradients.give(others, mine)
            other.step()
            control.step()
        assert same_bits(others, mine)


@each_turning
def test_a_checkpointer_that_keeps_tensors_only_moves_no_sphere(case: Case) -> None:
    weights = [made(5, 9)]
    optimizer = stepped(case, weights)
    state = optimizer.state_dict()
    strict = {
        key: {name: value for name, value in entry.items() if isinstance(value, Tensor)}
        for key, entry in state["state"].items()
    }
    with torch.no_grad():
        weights[0].mul_(1 + 5e-5)
    others = copies(weights)
    loaded = case.build(others)
    loaded.load_state_dict({**state, "state": on_disk(strict)})
    radius = optimizer.state[weights[0]]["radius"].clone()
    gradients = Gradients(9)
    gradients.give(weights, others)
    optimizer.step()
    loaded.step()
    assert torch.equal(loaded.state[others[0]]["radius"], radius)
    assert same_bits(weights, others)


def test_settings_that_a_state_of_an_older_version_lacks_are_the_defaults() -> None:
    weights = [made(5, 9)]
    optimizer = stepped(Case(LionAR, {"nesterov": True}), weights)
    state = optimizer.state_dict()
    for name in ("nesterov", "peak_lr", "rotational"):
        del state["param_groups"][0][name]
    optimizer.load_state_dict(state)
    (group,) = optimizer.param_groups
    assert (group["nesterov"], group["peak_lr"], group["rotational"]) == (True, 1e-2, None)


# ------------------------------------------------------------- torch.distributed.checkpoint


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inside, self.out = nn.Linear(9, 6), nn.Linear(6, 3)


@pytest.mark.parametrize("flat", [True, False])
@each
def test_the_state_dict_api_of_distributed_checkpoints(case: Case, flat: bool) -> None:
    """It steps a fresh optimizer with zero gradients at lr 0 to make its state."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model = Model()
    weights = list(model.parameters())
    optimizer = stepped(case, weights, 4)
    state = on_disk(get_optimizer_state_dict(model, optimizer, options=options))
    other = Model()
    other.load_state_dict(model.state_dict())
    loaded = case.build(other.parameters())
    set_optimizer_state_dict(other, loaded, state, options=options)
    others = list(other.parameters())
    assert same_bits(weights, others)
    assert same_state(optimizer, loaded)
    gradients = Gradients(5)
    for _ in range(3):
        gradients.give(weights, others)
        optimizer.step()
        loaded.step()
    assert same_bits(weights, others)


def test_a_state_saved_to_a_file_is_small(tmp_path: Path) -> None:
    """Beside buffers there is one number per row."""
    w = made(100, 50)
    torch.save(stepped(Case(RotationalSGD), [w]).state_dict(), tmp_path / "state.pt")
    entries = torch.load(tmp_path / "state.pt", weights_only=True)["state"][0]
    assert sum(value.numel() for value in entries.values()) == 100 * 50 + 2 * 100 + 1
    assert math.prod(entries["radius"].shape) == 100
