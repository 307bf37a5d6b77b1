from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from smd_hooks.measure.stepping import AroundStep, InsideStep, closure_of


class Nested(torch.optim.SGD):
    """Its step calls its base's, which calls the hooks as well."""

    fails = False

    def step(self, closure: Any = None) -> None:
        super().step()
        if self.fails:
            raise RuntimeError("out of memory")
        with torch.no_grad():
            self.param_groups[0]["params"][0].clamp_(max=0.5)


@pytest.fixture
def weight() -> nn.Parameter:
    weight = nn.Parameter(torch.ones(2, 2))
    torch.optim.SGD([weight])  # from here on torch calls hooks in SGD.step
    weight.grad = torch.zeros(2, 2)
    return weight


def test_control_torch_calls_twice_where_steps_are_nested(weight: nn.Parameter) -> None:
    calls = []
    optimizer = Nested([weight])
    optimizer.register_step_post_hook(lambda *_: calls.append(float(weight.detach()[0, 0])))
    optimizer.step()
    assert calls == [1.0, 0.5]


def test_a_nested_step_is_one_and_ends_where_the_outer_one_does(weight: nn.Parameter) -> None:
    optimizer, told = Nested([weight]), []
    around = AroundStep(
        optimizer,
        lambda *_: told.append(("before", float(weight.detach()[0, 0]))),
        lambda *_: told.append(("after", float(weight.detach()[0, 0]))),
    )
    optimizer.step()
    optimizer.step()
    assert told == [("before", 1.0), ("after", 0.5), ("before", 0.5), ("after", 0.5)]
    around.remove()
    optimizer.step()
    assert len(told) == 4


@pytest.mark.parametrize("kind", [torch.optim.SGD, Nested])
def test_a_step_that_raised_does_not_end_the_counting(
    weight: nn.Parameter, kind: type[torch.optim.SGD]
) -> None:
    optimizer, told = kind([weight]), []
    AroundStep(optimizer, lambda *_: told.append("before"), lambda *_: told.append("after"))

    def broken() -> float:
        raise RuntimeError("out of memory")

    for _ in range(2):
        if kind is Nested:
            optimizer.fails = True  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError, match="out of memory"):
            optimizer.step(broken)
    if kind is Nested:
        optimizer.fails = False  # type: ignore[attr-defined]
    told.clear()
    optimizer.step()
    assert told == ["before", "after"]


def test_inside_is_within_all_other_hooks_whoever_came_first(weight: nn.Parameter) -> None:
    optimizer, told = torch.optim.SGD([weight], lr=0.1), []

    def watch(name: str) -> None:
        def before(_: Any, args: Any, kwargs: Any) -> None:
            # nobody takes it for a closure that makes gradients
            told.append((f"{name} before", closure_of(args, kwargs) is None))

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(lambda *_: told.append((f"{name} after", True)))

    watch("early")
    inside = InsideStep(
        optimizer, lambda: told.append(("begin", True)), lambda: told.append(("end", True))
    )
    watch("late")
    for _ in range(2):
        optimizer.step()
    names = ["early before", "late before", "begin", "end", "early after", "late after"]
    assert told == [(name, True) for name in names * 2]
    inside.remove()
    optimizer.step()
    assert [name for name, _ in told[12:]] == [n for n in names if n not in ("begin", "end")]


def test_inside_begins_once_the_closure_has_made_gradients(weight: nn.Parameter) -> None:
    optimizer, told = torch.optim.SGD([weight], lr=0.1), []
    InsideStep(optimizer, lambda: told.append("begin"), lambda: told.append("end"))

    def closure() -> float:
        told.append("closure")
        assert torch.is_grad_enabled()
        return 3.0

    assert optimizer.step(closure) == 3.0
    assert told == ["closure", "begin", "end"]
    assert optimizer.step() is None
