from __future__ import annotations

import pytest
import torch

from smd_hooks.theory import NoPrediction, UpdateRule


def test_reads_every_setting_of_a_live_sgd() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.SGD([weight], lr=0.3, momentum=0.8, dampening=0.1, weight_decay=0.02)
    rule = UpdateRule.from_optimizer(optimizer, optimizer.param_groups[0])
    assert rule == UpdateRule(0.3, 0.02, 0.8, 0.1, False)
    assert rule.step_lr == pytest.approx(0.27)


def test_json_round_trip() -> None:
    rule = UpdateRule(0.1, 1e-4, 0.9, nesterov=True)
    assert UpdateRule.from_config(rule.to_json()) == rule


def test_dampening_counts_only_with_momentum() -> None:
    """torch applies dampening to the momentum buffer; plain SGD has none."""
    assert UpdateRule.from_config({"type": "SGD", "lr": 1.0, "dampening": 0.5}).step_lr == 1.0


@pytest.mark.parametrize("name", ["AdamW", "Adam", "Lion", "SomethingNew"])
def test_an_unknown_optimizer_gets_no_prediction_rather_than_a_wrong_one(name: str) -> None:
    with pytest.raises(NoPrediction, match=f"no prediction for {name}"):
        UpdateRule.from_config({"type": name, "lr": 0.1, "weight_decay": 0.1})


def test_ascent_gets_no_prediction() -> None:
    with pytest.raises(NoPrediction, match="maximize"):
        UpdateRule.from_config({"type": "SGD", "lr": 0.1, "maximize": True})
