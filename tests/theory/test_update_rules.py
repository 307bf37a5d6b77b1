from __future__ import annotations

import json

import pytest

from smd_hooks.theory import (
    AdamRule,
    LionRule,
    NoPrediction,
    RotationalRule,
    SGDRule,
    UpdateRule,
)

RULES = [
    SGDRule(0.1, 1e-4, 0.9, nesterov=True),
    SGDRule(0.1, 1e-4, 0.9, 0.5, decoupled=True),
    AdamRule(1e-3, 0.1, 0.8, 0.95, decoupled=False),
    LionRule(1e-4, 1.0, 0.95, 0.98, 0.5),
    RotationalRule(1e-3, 0.1, 0.3, 1e-2),
    RotationalRule(1e-3, 0.1, 0.3, 1e-2, "sqrt", 0.02, 0.98, True),
]


@pytest.mark.parametrize("rule", RULES)
def test_json_round_trip(rule: UpdateRule) -> None:
    assert UpdateRule.from_json(json.loads(json.dumps(rule.to_json()))) == rule


def test_records_of_earlier_versions_are_read() -> None:
    old = {"type": "SGD", "lr": 0.1, "weight_decay": 1e-4, "momentum": 0.9}
    assert UpdateRule.from_json({**old, "dampening": 0.0, "nesterov": True}) == SGDRule(
        0.1, 1e-4, 0.9, nesterov=True
    )


@pytest.mark.parametrize("odd", [{"type": "Muon"}, {"type": "SGD", "spin": 1}, {}])
def test_a_record_that_is_not_understood_gets_no_prediction(odd: dict[str, object]) -> None:
    with pytest.raises(NoPrediction, match="not a rule known here"):
        UpdateRule.from_json({"lr": 0.1, "weight_decay": 0.1, **odd})


@pytest.mark.parametrize("rule", RULES)
def test_constants_are_what_a_schedule_of_lr_and_decay_leaves_alone(rule: UpdateRule) -> None:
    moved = rule.at(0.5, 0.25)
    assert (moved.lr, moved.weight_decay) == (0.5, 0.25)
    assert moved.constants == rule.constants
    assert moved.at(rule.lr, rule.weight_decay) == rule
    assert len({r.constants for r in RULES}) == len(RULES)


def test_constants_notice_a_scheduled_momentum() -> None:
    assert SGDRule(0.1, 1e-4, 0.9).constants != SGDRule(0.1, 1e-4, 0.85).constants
    assert AdamRule(0.1, 1e-4).constants != AdamRule(0.1, 1e-4, 0.95).constants


def test_impossible_momentum_gets_no_prediction() -> None:
    with pytest.raises(NoPrediction, match=r"momentum=1\.0: not in"):
        SGDRule(0.1, 0.1, 1.0)
    with pytest.raises(NoPrediction, match="Nesterov momentum with dampening"):
        SGDRule(0.1, 0.1, 0.9, 0.5, nesterov=True)
    for family in (AdamRule, LionRule):
        with pytest.raises(NoPrediction, match="beta2=-1: not in"):
            family(0.1, 0.1, 0.9, -1)
