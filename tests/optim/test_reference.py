"""Every optimizer's fast step is its readable one: all shapes, layouts, options, schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from smd_hooks.optim import LionA, LionAR, c_passes, sphere_optimizer
from smd_hooks.optim.passes import TorchPasses
from tests.optim.cases import (
    CASES,
    GENERATED,
    LAYOUTS,
    PLAIN,
    SHAPES,
    Case,
    Gradients,
    distance,
    laid_out,
    mixed_weights,
    name_of,
    weight,
)

STEPS = 100
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2}
"""‖fast − reference‖/‖reference‖ after that many steps.

In bf16 a momentum and a gradient often cancel exactly, so that the last bit of a double decides
a sign, and all elements of one mantissa are rounded up or down together: a few units in the
last place are all that can be asked for.
"""

pytestmark = pytest.mark.filterwarnings("ignore:.*whose rounding turns them:UserWarning")


def compare(
    case: Case,
    weights: tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]],
    lrs: Sequence[float] = (1e-2,),
    absent: Sequence[Sequence[int]] = ((),),
    steps: int = STEPS,
) -> None:
    """Step two copies, one fast, one by the reference; hold weights and all state equal."""
    fast, reference = (case.build(copy, lr=max(*lrs, 1e-4)) for copy in weights)
    gradients = Gradients()
    for t in range(steps):
        gradients.give(*weights, absent=absent[t % len(absent)])
        for optimizer in (fast, reference):
            optimizer.param_groups[0]["lr"] = lrs[t % len(lrs)]
        fast.step()
        reference.reference_step()
    for mine, wanted in zip(*weights, strict=True):
        bound = BOUNDS[mine.dtype]
        assert distance(mine, wanted) <= bound, tuple(mine.shape)
        a, b = fast.state[mine], reference.state[wanted]
        assert a.keys() == b.keys()
        for name, tensor in a.items():
            assert distance(tensor, b[name]) <= bound, (name, tuple(mine.shape))


@pytest.mark.parametrize("case", PLAIN, ids=name_of)
def test_mixed_weights(case: Case) -> None:
    compare(case, (mixed_weights(), mixed_weights()))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_mixed_weights_with_options(case: Case, dtype: torch.dtype) -> None:
    compare(case, (mixed_weights(dtype), mixed_weights(dtype)))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_mixed_weights_without_a_compiler(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sphere_optimizer, "passes_for", lambda *_: TorchPasses())
    compare(case, (mixed_weights(), mixed_weights()))


def test_the_form_in_c_is_what_the_others_are_compared_by() -> None:
    if c_passes.load() is None:
        pytest.skip("no C compiler here")
    chosen = sphere_optimizer.passes_for(torch.float32, torch.device("cpu"))
    assert isinstance(chosen, c_passes.CPasses)


def check_generated(data: Any, steps: int, dtypes: Sequence[torch.dtype]) -> None:
    case = data.draw(GENERATED)
    shapes, dtype = data.draw(SHAPES), data.draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    scales = data.draw(st.lists(st.sampled_from([1.0, 1e-6, 1e6, 0.0]), min_size=1, max_size=5))
    drawn = [
        laid_out(weight(shape, generator, dtype, scales[i % len(scales)]), data.draw(LAYOUTS))
        for i, shape in enumerate(shapes)
    ]
    copies = [nn.Parameter(w.detach().clone()) for w in drawn]
    lrs = data.draw(st.lists(st.sampled_from([0.0, 1e-4, 1e-2, 0.1]), min_size=1, max_size=7))
    places = st.lists(st.integers(0, len(shapes) - 1), max_size=3)
    absent = data.draw(st.lists(places, min_size=1, max_size=4))
    compare(case, (drawn, copies), lrs, absent, steps)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_generated_weights_options_and_schedules(data: Any) -> None:
    check_generated(data, STEPS, [torch.float64, torch.float32])


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_many_generated_weights_options_and_schedules(data: Any) -> None:
    check_generated(data, STEPS, list(BOUNDS))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1_000_003,), (1, 1_000_000), (1000, 1000), (300_000, 3)])
@pytest.mark.parametrize("case", PLAIN, ids=name_of)
def test_huge_weights(case: Case, shape: tuple[int, ...]) -> None:
    copies = [[weight(shape, torch.Generator().manual_seed(0), torch.float32)] for _ in range(2)]
    compare(case, (copies[0], copies[1]), steps=20)


@pytest.mark.parametrize("case", PLAIN, ids=name_of)
def test_both_steps_may_take_turns_on_one_state(case: Case) -> None:
    turns, fast = mixed_weights(torch.float64), mixed_weights(torch.float64)
    one, other = case.build(turns), case.build(fast)
    gradients = Gradients()
    for t in range(12):
        gradients.give(turns, fast)
        one.reference_step() if t % 3 == 0 else one.step()
        other.step()
    for a, b in zip(turns, fast, strict=True):
        assert distance(a, b) <= BOUNDS[torch.float64]


@pytest.mark.parametrize(
    ("case", "other"),
    [
        (Case(LionA), Case(LionA, {"beta": 0.91})),
        (Case(LionAR), Case(LionAR, {"nesterov": True})),
        *((case, Case(case.kind, {"update_norm_decay": 0.5})) for case in PLAIN[2:]),
        *((case, Case(case.kind, {"zero_mean": False})) for case in PLAIN[2:]),
        *((case, Case(case.kind, {"per_neuron": False})) for case in PLAIN[1:]),
    ],
    ids=lambda case: name_of(case),
)
def test_control_another_setting_is_seen(case: Case, other: Case) -> None:
    weights, copies = mixed_weights(), mixed_weights()
    fast, reference = case.build(weights), other.build(copies)
    gradients = Gradients()
    for _ in range(10):
        gradients.give(weights, copies)
        fast.step()
        reference.reference_step()
    worst = max(distance(a, b) for a, b in zip(weights, copies, strict=True))
    assert worst > 100 * BOUNDS[torch.float32]
