"""Update rules read off our own optimizers, and held against the steps that these take."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from smd_hooks.optim import LionA, LionAR, RotationalAdamW, RotationalLion, RotationalSGD
from smd_hooks.theory import (
    AdamRule,
    LionRule,
    NoPrediction,
    RotationalRule,
    SGDRule,
    UpdateRule,
    early_excess,
    lion_ar_constant,
    rotation_constant,
)

Kind = Callable[..., torch.optim.Optimizer]
SET = {"lr": 0.02, "weight_decay": 0.1}
ADAMW = rotation_constant(AdamRule(1, 1, 0.8))
GAMMA = math.sqrt((1 - 0.8) / (1 + 0.8))


def turned(constant: float, **settings: Any) -> RotationalRule:
    return RotationalRule(0.02, 0.1, constant, peak_lr=0.02, **settings)


TURNED: list[tuple[Kind, dict[str, Any], RotationalRule]] = [
    (LionAR, {"beta": 0.8}, turned(ADAMW)),
    (LionAR, {"beta": 0.8, "schedule": "sqrt"}, turned(ADAMW, schedule="sqrt")),
    (LionAR, {"beta": 0.8, "angle": 0.01}, turned(ADAMW, angle=0.01)),
    (
        LionAR,
        {"beta": 0.8, "matching": "net"},
        turned(lion_ar_constant(0.8, matching="net")),
    ),
    (
        LionAR,
        {"beta": 0.8, "nesterov": True, "inverse_bias_correction": True, "matching": "net"},
        turned(lion_ar_constant(0.8, True, "net"), corrected_beta=0.8, nesterov=True),
    ),
    (
        RotationalSGD,
        {"momentum": 0.8},
        turned(rotation_constant(SGDRule(1, 1, 0.8)), schedule="sqrt"),
    ),
    (RotationalAdamW, {"betas": (0.8, 0.95)}, turned(ADAMW, schedule="sqrt")),
    (
        RotationalLion,
        {"betas": (0.8, 0.95), "schedule": "linear", "angle": 0.03},
        turned(rotation_constant(LionRule(1, 1, 0.8, 0.95)), angle=0.03),
    ),
]
ORDINARY: list[tuple[Kind, dict[str, Any], UpdateRule]] = [
    (LionA, {**SET, "beta": 0.8}, LionRule(0.02, 0.1, 0.8, 0.8, GAMMA)),
    (LionA, {**SET, "beta": 0.8, "nesterov": True}, LionRule(0.02, 0.1, 0.8**2, 0.8, GAMMA)),
    (LionAR, {"lr": 0.02, "beta": 0.8}, LionRule(0.02, 0.0, 0.8, 0.8, GAMMA)),
    (RotationalSGD, {**SET, "momentum": 0.8}, SGDRule(0.02, 0.1, 0.8)),
    (RotationalAdamW, {**SET, "betas": (0.8, 0.95)}, AdamRule(0.02, 0.1, 0.8, 0.95)),
    (RotationalLion, {**SET, "betas": (0.8, 0.95)}, LionRule(0.02, 0.1, 0.8, 0.95)),
]


def weights(rows: int = 2, elements: int = 3) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(rows, elements, dtype=torch.float64, generator=generator)
    return [torch.nn.Parameter(w)]


def opted_out(kind: Kind, settings: dict[str, Any]) -> torch.optim.Optimizer:
    return kind([{"params": weights(), "rotational": False}], **settings)


def read(optimizer: torch.optim.Optimizer) -> UpdateRule:
    return UpdateRule.from_optimizer(optimizer, optimizer.param_groups[0])


@pytest.mark.parametrize(("kind", "settings", "rule"), TURNED)
def test_what_is_turned_is_read_from_optimizer_config_and_record(
    kind: Kind, settings: dict[str, Any], rule: RotationalRule
) -> None:
    assert read(kind(weights(), **SET, **settings)) == rule
    assert UpdateRule.from_config({"type": kind, **SET, **settings}) == rule
    assert UpdateRule.from_json(json.loads(json.dumps(rule.to_json()))) == rule


@pytest.mark.parametrize(("kind", "settings", "rule"), ORDINARY)
def test_what_is_not_turned_has_its_ordinary_rule(
    kind: Kind, settings: dict[str, Any], rule: UpdateRule
) -> None:
    assert read(opted_out(kind, settings)) == rule
    undecayed = {**settings, "weight_decay": 0.0}
    wanted = rule.at(0.02, 0.0)
    assert read(kind(weights(), **undecayed)) == wanted
    assert UpdateRule.from_config({"type": kind, **undecayed}) == wanted


@pytest.mark.parametrize("kind", [LionA, LionAR, RotationalSGD, RotationalAdamW, RotationalLion])
def test_a_config_says_what_the_constructor_would(kind: type) -> None:
    for settings in ({"lr": 0.02}, SET):
        rule = read(kind(weights(), **settings))
        for name in ("", "smd_hooks.", "smd_hooks.optim.", f"{kind.__module__}."):
            config = {"type": name + kind.__name__, **settings}
            assert UpdateRule.from_config(config) == rule


def test_lion_ar_decays_nothing_that_it_does_not_turn() -> None:
    with pytest.raises(NoPrediction, match="LionAR has no weight decay but in what it turns"):
        read(opted_out(LionAR, SET))


def test_a_scheduled_group_is_held_against_its_peak() -> None:
    optimizer = LionAR(weights(), **SET)
    assert isinstance(rule := read(optimizer), RotationalRule)
    torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.25)
    assert read(optimizer) == rule.at(0.005, 0.1)
    assert rule.at(0.005, 0.1).angular_update == pytest.approx(rule.peak_angle / 4)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=10, cycle_momentum=False)
    assert isinstance(cycled := read(optimizer), RotationalRule)
    assert cycled.peak_lr == 0.5


def test_a_group_that_never_learns_says_so() -> None:
    with pytest.raises(NoPrediction, match="learning rate is 0"):
        read(LionAR(weights(), lr=0.0, weight_decay=0.1))


def test_tensors_are_read_as_numbers() -> None:
    optimizer = LionAR(weights(), lr=torch.tensor(0.5, dtype=torch.float64), weight_decay=0.1)
    rule = read(optimizer)
    assert rule == read(LionAR(weights(), lr=0.5, weight_decay=0.1))
    assert all(value is None or type(value) in (float, bool, str) for value in vars(rule).values())


# --------------------------------------------------------------------------- against steps


def angle(before: Tensor, after: Tensor) -> Tensor:
    u, v = (w.flatten() / w.norm() for w in (before, after))
    return 2 * torch.asin((u - v).norm() / 2)


@pytest.mark.parametrize("recipe", [{}, {"nesterov": True}, {"beta": 0.98, "matching": "net"}])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("schedule", ["linear", "sqrt"])
def test_lion_ar_turns_as_its_rule_says_at_each_step(
    recipe: dict[str, Any], corrected: bool, schedule: str
) -> None:
    (w,) = weights(4, 50)
    optimizer = LionAR([w], **SET, **recipe, inverse_bias_correction=corrected, schedule=schedule)
    decline = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    generator = torch.Generator().manual_seed(1)
    radius = float(w.detach().norm())
    for t in range(1, 20):
        w.grad = torch.randn(w.shape, dtype=w.dtype, generator=generator)
        before, rule = w.detach().clone(), read(optimizer)
        optimizer.step()
        assert isinstance(rule, RotationalRule)
        expected = rule.angular_update * float(early_excess(rule, t)) ** 0.5
        assert float(angle(before, w.detach())) == pytest.approx(expected, rel=1e-6)
        assert float(w.detach().norm()) == pytest.approx(radius, rel=1e-6)
        decline.step()
    # control: the other schedule asks for another angle by now
    other = RotationalRule(**{**vars(rule), "schedule": {"linear": "sqrt"}.get(schedule, "linear")})
    assert abs(math.log(other.angular_update / rule.angular_update)) > 1


@pytest.mark.parametrize(("kind", "settings", "rule"), TURNED[-3:])
def test_rotational_variants_turn_as_their_rules_say_on_average(
    kind: Kind, settings: dict[str, Any], rule: RotationalRule
) -> None:
    (w,) = weights(32, 64)
    optimizer = kind([w], **SET, **settings)
    generator, squares = torch.Generator().manual_seed(1), []
    for t in range(500):
        w.grad = torch.randn(w.shape, dtype=w.dtype, generator=generator)
        before = w.detach().clone()
        optimizer.step()
        if t >= 100:
            squares.append(float(angle(before, w.detach())) ** 2)
    measured = math.sqrt(sum(squares) / len(squares))
    assert measured == pytest.approx(rule.angular_update, rel=0.01)
