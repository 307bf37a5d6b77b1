"""Update rules read off real optimizers, and off configs as MMEngine builds them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import lion_pytorch
import lion_pytorch.foreach
import pytest
import timm.optim
import torch
from lion_pytorch.cautious_lion import Lion as CautiousLion

from smd_hooks.optim import LionA, LionAR, RotationalAdamW, RotationalLion, RotationalSGD
from smd_hooks.theory import (
    AdamRule,
    LionRule,
    NoPrediction,
    SGDRule,
    UpdateRule,
    register_rule,
)
from smd_hooks.theory.rule_readers import _known

KNOWN: list[tuple[Callable[..., Any], dict[str, Any], UpdateRule]] = [
    (torch.optim.SGD, {"lr": 0.3, "weight_decay": 0.02}, SGDRule(0.3, 0.02)),
    (
        torch.optim.SGD,
        {"lr": 0.3, "momentum": 0.8, "dampening": 0.1, "weight_decay": 0.02},
        SGDRule(0.3, 0.02, 0.8, 0.1),
    ),
    (
        torch.optim.SGD,
        {"lr": 0.3, "momentum": 0.8, "nesterov": True},
        SGDRule(0.3, 0.0, 0.8, nesterov=True),
    ),
    (
        timm.optim.SGDW,
        {"lr": 0.3, "momentum": 0.8, "dampening": 0.1, "weight_decay": 0.02},
        SGDRule(0.3, 0.02, 0.8, 0.1, decoupled=True),
    ),
    (torch.optim.AdamW, {"lr": 0.01, "betas": (0.8, 0.95)}, AdamRule(0.01, 0.01, 0.8, 0.95)),
    (
        torch.optim.Adam,
        {"lr": 0.01, "weight_decay": 0.1},
        AdamRule(0.01, 0.1, 0.9, 0.999, decoupled=False),
    ),
    (lion_pytorch.Lion, {"lr": 0.01, "weight_decay": 0.1}, LionRule(0.01, 0.1, 0.9, 0.99)),
    (
        lion_pytorch.foreach.Lion,
        {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95)},
        LionRule(0.01, 0.1, 0.8, 0.95),
    ),
    (timm.optim.Lion, {"lr": 0.01, "betas": (0.8, 0.95)}, LionRule(0.01, 0.0, 0.8, 0.95)),
    (
        LionA,
        {"lr": 0.01, "beta": 0.8, "weight_decay": 0.1},
        LionRule(0.01, 0.1, 0.8, 0.8, ((1 - 0.8) / (1 + 0.8)) ** 0.5),
    ),
    (
        LionA,
        {"lr": 0.01, "beta": 0.8, "weight_decay": 0.1, "nesterov": True},
        LionRule(0.01, 0.1, 0.8**2, 0.8, ((1 - 0.8) / (1 + 0.8)) ** 0.5),
    ),
    # without weight decay nothing is turned
    (LionAR, {"lr": 0.01}, LionRule(0.01, 0.0, 0.9, 0.9, ((1 - 0.9) / (1 + 0.9)) ** 0.5)),
    (RotationalSGD, {"lr": 0.01, "momentum": 0.8}, SGDRule(0.01, 0.0, 0.8)),
    (RotationalAdamW, {"lr": 0.01, "betas": (0.8, 0.95)}, AdamRule(0.01, 0.0, 0.8, 0.95)),
    (RotationalLion, {"lr": 0.01, "betas": (0.8, 0.95)}, LionRule(0.01, 0.0, 0.8, 0.95)),
]


def read(optimizer: torch.optim.Optimizer) -> UpdateRule:
    return UpdateRule.from_optimizer(optimizer, optimizer.param_groups[0])


def weights() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(2, 2))]


@pytest.mark.parametrize(("kind", "settings", "rule"), KNOWN)
def test_every_setting_of_a_live_optimizer_is_read(
    kind: Callable[..., Any], settings: dict[str, Any], rule: UpdateRule
) -> None:
    assert read(kind(weights(), **settings)) == rule


@pytest.mark.parametrize(("kind", "settings", "rule"), KNOWN)
def test_a_config_says_what_the_optimizer_would(
    kind: type, settings: dict[str, Any], rule: UpdateRule
) -> None:
    """By class, with everything that is left out at the constructor's own default."""
    assert UpdateRule.from_config({"type": kind, **settings}) == rule
    least = {"type": kind, "lr": 0.01}
    assert UpdateRule.from_config(least) == read(kind(weights(), lr=0.01))


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("SGD", SGDRule),
        ("torch.optim.SGD", SGDRule),
        ("torch.optim.sgd.SGD", SGDRule),
        ("AdamW", AdamRule),
        ("Adam", AdamRule),
        ("Lion", LionRule),
        ("lion_pytorch.Lion", LionRule),
        ("timm.optim.Lion", LionRule),
        ("timm.optim.SGDW", SGDRule),
    ],
)
def test_configs_name_optimizers_as_mmengine_does(name: str, family: type) -> None:
    rule = UpdateRule.from_config({"type": name, "lr": 0.1, "weight_decay": 0.01})
    assert type(rule) is family
    assert (rule.lr, rule.weight_decay) == (0.1, 0.01)


def test_torchs_flag_makes_adam_adamw() -> None:
    flag = "decoupled_weight_decay"
    if flag not in inspect.signature(torch.optim.Adam).parameters:
        pytest.skip("this torch has no such flag")
    optimizer = torch.optim.Adam(weights(), lr=0.01, weight_decay=0.1, **{flag: True})
    assert read(optimizer) == AdamRule(0.01, 0.1)
    config = {"type": "Adam", "lr": 0.01, "weight_decay": 0.1, flag: True}
    assert UpdateRule.from_config(config) == AdamRule(0.01, 0.1)


def test_tensor_settings_are_read_as_floats() -> None:
    optimizer = torch.optim.AdamW(
        weights(),
        lr=torch.tensor(0.01, dtype=torch.float64),
        betas=(torch.tensor(0.5), torch.tensor(0.75)),
        capturable=True,
    )
    rule = read(optimizer)
    assert rule == AdamRule(0.01, 0.01, 0.5, 0.75)
    assert all(type(value) in (float, bool) for value in vars(rule).values())


class SubclassedSGD(torch.optim.SGD):
    """A step of its own would go unseen."""


class Lion(torch.optim.Optimizer):
    """A stranger with a known name and known settings."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.1})


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (torch.optim.SGD, {"maximize": True}, r"SGD\(maximize=True\)"),
        (torch.optim.AdamW, {"amsgrad": True}, r"AdamW\(amsgrad=True\)"),
        (torch.optim.Adam, {"maximize": True}, r"Adam\(maximize=True\)"),
        (timm.optim.Lion, {"caution": True}, r"Lion\(caution=True\)"),
        (timm.optim.Lion, {"maximize": True}, r"Lion\(maximize=True\)"),
        (timm.optim.SGDW, {"corrected_weight_decay": True}, r"SGDW\(corrected_weight_decay"),
        (
            lion_pytorch.Lion,
            {"decoupled_weight_decay": True},
            r"Lion\(decoupled_weight_decay=True\)",
        ),
        (
            lion_pytorch.foreach.Lion,
            {"decoupled_weight_decay": True},
            r"Lion\(decoupled_weight_decay=True\)",
        ),
        (lion_pytorch.Lion, {"betas": (0.9, 1.0)}, "beta2=1.0"),
        (CautiousLion, {}, "lion_pytorch.cautious_lion: its update rule is not known"),
        (torch.optim.RMSprop, {}, "RMSprop of torch.optim.rmsprop"),
        (torch.optim.NAdam, {}, "NAdam"),
        (timm.optim.AdamP, {}, "AdamP"),
        (SubclassedSGD, {}, "SubclassedSGD"),
    ],
)
def test_what_changes_the_rule_gets_no_prediction_rather_than_a_wrong_one(
    kind: Callable[..., Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(NoPrediction, match=rf"^no prediction for .*{message}"):
        read(kind(weights(), lr=0.1, **settings))
    with pytest.raises(NoPrediction, match=r"^no prediction for "):
        UpdateRule.from_config({"type": kind, "lr": 0.1, **settings})


def test_a_wrapped_or_namesake_optimizer_gets_no_prediction() -> None:
    lookahead = timm.optim.Lookahead(torch.optim.SGD(weights(), lr=0.1))
    for optimizer in (lookahead, Lion(weights())):
        with pytest.raises(NoPrediction, match=rf"no prediction for {type(optimizer).__name__} of"):
            read(optimizer)


@pytest.mark.parametrize("name", ["SomethingNew", "SGDW", "my.SGD", "torch.optim.AdamWW", None])
def test_an_unknown_name_in_a_config_gets_no_prediction(name: Any) -> None:
    with pytest.raises(NoPrediction, match="no prediction for"):
        UpdateRule.from_config({"type": name, "lr": 0.1, "weight_decay": 0.1})


def test_users_can_register_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smd_hooks.theory.rule_readers._known", dict(_known))

    def reader(group: Any) -> UpdateRule:
        return LionRule(group["lr"], group["weight_decay"], *group["betas"])

    optimizer = Lion(weights())
    for name in (Lion, f"{Lion.__module__}.Lion"):
        register_rule(name, reader)
        assert read(optimizer) == LionRule(0.1, 0.1)
    with pytest.raises(NoPrediction, match=r"no setting 'weight_decay'"):
        UpdateRule.from_config({"type": Lion, "lr": 0.1})
    register_rule("MyLion", reader)
    config = {"type": "MyLion", "lr": 0.1, "weight_decay": 0.1, "betas": (0.9, 0.99)}
    assert UpdateRule.from_config(config) == LionRule(0.1, 0.1)


@pytest.mark.parametrize(("kind", "settings", "rule"), KNOWN)
def test_the_rule_makes_the_optimizers_own_step(
    kind: Callable[..., Any], settings: dict[str, Any], rule: UpdateRule
) -> None:
    """Five steps of the real optimizer against the family's definition, in float64."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(7, dtype=torch.float64, generator=generator)
    parameter = torch.nn.Parameter(w.clone())
    optimizer = kind([parameter], **settings)
    m, s = torch.zeros_like(w), torch.zeros_like(w)
    decoupled = getattr(rule, "decoupled", True)
    for t in range(5):
        g = torch.randn(7, dtype=torch.float64, generator=generator)
        parameter.grad = g.clone()
        optimizer.step()
        if not decoupled:
            g = g + rule.weight_decay * w
        if isinstance(rule, SGDRule):
            m = rule.momentum * m + (g if t == 0 else (1 - rule.dampening) * g)
            u = g + rule.momentum * m if rule.nesterov else m
        elif isinstance(rule, AdamRule):
            m = rule.beta1 * m + (1 - rule.beta1) * g
            s = rule.beta2 * s + (1 - rule.beta2) * g**2
            u = m / (1 - rule.beta1 ** (t + 1)) / (s / (1 - rule.beta2 ** (t + 1))).sqrt()
        else:
            assert isinstance(rule, LionRule)
            u = rule.scale * (rule.beta1 * m + (1 - rule.beta1) * g).sign()
            m = rule.beta2 * m + (1 - rule.beta2) * g
        w = w * (1 - rule.lr * rule.weight_decay if decoupled else 1) - rule.lr * u
    assert torch.allclose(parameter.detach(), w, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("reader", "reason"),
    [
        (lambda group: group["lr"] + "1", "its reader failed (TypeError"),
        (lambda group: None, "its reader failed (TypeError"),
        (lambda group: UpdateRule(0.1, 0.1), "its reader gave UpdateRule, not SGDRule"),
    ],
)
def test_a_reader_that_is_wrong_predicts_nothing(reader: Any, reason: str) -> None:
    class Own:
        pass

    register_rule(Own, reader)
    with pytest.raises(NoPrediction) as error:
        UpdateRule.from_optimizer(Own(), {"lr": 0.1})
    assert str(error.value).startswith(f"no prediction for {Own.__qualname__.rpartition('.')[2]}")
    assert reason in str(error.value)


def test_settings_that_are_tensors_become_numbers() -> None:
    class Own:
        pass

    register_rule(Own, lambda group: SGDRule(group["lr"], 0.1, 0.9))
    rule = UpdateRule.from_optimizer(Own(), {"lr": torch.tensor(0.5)})
    assert rule == SGDRule(0.5, 0.1, 0.9)
    assert type(rule.lr) is float
