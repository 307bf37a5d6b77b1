"""What RotationalUpdate can be put on, with which options, and what theory says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from smd_hooks.optim import (
    LionAR,
    RotationalUpdate,
)
from smd_hooks.theory import (
    RotationalRule,
    SGDRule,
    UpdateRule,
    register_rule,
    rotation_constant,
    step_angle,
)
from tests.optim.pairs import SET, trained

# --------------------------------------------------------------- what theory says of it


def test_its_rule_is_the_angle_that_is_set() -> None:
    matrix, free = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(4, 5))
    groups = [{"params": [matrix]}, {"params": [free], "rotational": False}]
    optimizer = SGD(groups, momentum=0.9, **SET)
    update = RotationalUpdate(optimizer, schedule="linear")
    turned, ordinary = (UpdateRule.from_optimizer(optimizer, g) for g in optimizer.param_groups)
    constant = rotation_constant(SGDRule(1, 1, 0.9))
    assert turned == RotationalRule(0.01, 0.1, constant, peak_lr=0.01, schedule="linear")
    assert ordinary == SGDRule(0.01, 0.1, 0.9)
    assert turned.angular_update == pytest.approx(step_angle(0.01, 0.1, constant, 0.01, "linear"))
    update.detach()
    assert UpdateRule.from_optimizer(optimizer, optimizer.param_groups[0]) == ordinary


def test_momentum_that_changes_changes_the_angle() -> None:
    """OneCycle lets momentum follow the learning rate."""
    weight = nn.Parameter(torch.randn(4, 500))
    optimizer = SGD([weight], momentum=0.9, **SET)
    update = RotationalUpdate(optimizer)
    angles = []
    for momentum in (0.9, 0.5):
        optimizer.param_groups[0]["momentum"] = momentum
        angles.append(update._numbers(update._groups()[0], 0)[1])
    assert angles == pytest.approx([(2e-3 / 1.9) ** 0.5, (2e-3 / 1.5) ** 0.5])


# --------------------------------------------------------------------------- refusals


class Stranger(SGD):
    """Whose step nobody knows."""


class WithoutClosure(SGD):
    """Whose step has no place for a closure."""

    def step(self) -> None:  # type: ignore[override]
        super().step()


MATRIX = nn.Parameter(torch.ones(4, 5))
register_rule(WithoutClosure, lambda g: SGDRule(g["lr"], g["weight_decay"]))


@pytest.mark.parametrize(
    ("optimizer", "options", "error", "words"),
    [
        (lambda: Stranger([MATRIX], **SET), {}, ValueError, "Stranger .*register_rule adds one"),
        (lambda: Adam([MATRIX], **SET), {}, ValueError, "Adam with L2 .*give an angle"),
        (lambda: LionAR([MATRIX], **SET), {}, RuntimeError, "LionAR needs none"),
        (lambda: WithoutClosure([MATRIX], **SET), {}, RuntimeError, "takes no closure"),
        (lambda: SGD([MATRIX], 0.1), {}, ValueError, "nothing to turn"),
        (lambda: SGD([nn.Parameter(torch.ones(3))], **SET), {}, ValueError, "nothing to turn"),
        (lambda: SGD([MATRIX], **SET), {"schedule": "cosine"}, ValueError, "schedule must be"),
        (lambda: SGD([MATRIX], **SET), {"angle": -1.0}, ValueError, "angle must lie"),
        (lambda: SGD([MATRIX], **SET), {"update_norm_decay": 1}, ValueError, "update_norm_decay"),
        (
            lambda: SGD([{"params": [MATRIX], "rotational": True}], 0.1),
            {},
            ValueError,
            "rotational=True with weight_decay=0",
        ),
    ],
)
def test_what_cannot_be_turned_is_refused_in_one_line(
    optimizer: Callable[[], Optimizer], options: dict[str, Any], error: Any, words: str
) -> None:
    made = optimizer()
    with pytest.raises(error, match=f"^RotationalUpdate: .*{words}") as caught:
        RotationalUpdate(made, **options)
    assert "\n" not in str(caught.value)
    assert not hasattr(made, "smd_rotational_update")  # a second try is not the second one


def test_two_on_one_optimizer_are_refused() -> None:
    optimizer = SGD([MATRIX], **SET)
    RotationalUpdate(optimizer)
    with pytest.raises(RuntimeError, match="has one already"):
        RotationalUpdate(optimizer)


def test_adam_with_l2_is_turned_by_an_angle_that_is_given() -> None:
    lists = []
    for make in (lambda p: Adam(p, **SET), lambda p: AdamW(p, **SET)):
        weights = [nn.Parameter(torch.linspace(-1, 2, 20).reshape(4, 5))]
        optimizer = make(weights)
        RotationalUpdate(optimizer, angle=0.05)
        lists += trained(optimizer, weights, 10)
    assert torch.equal(*lists)


def test_bf16_weights_are_warned_of() -> None:
    weight = nn.Parameter(torch.randn(4, 5, dtype=torch.bfloat16))
    optimizer = SGD([weight], **{**SET, "lr": 1e-6})
    RotationalUpdate(optimizer)
    weight.grad = torch.randn_like(weight)
    with pytest.warns(UserWarning, match="RotationalUpdate: weights are bfloat16"):
        optimizer.step()
