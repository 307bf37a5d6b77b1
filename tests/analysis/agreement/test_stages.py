"""Stages of weights whose way to equilibrium is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis import predict
from smd_hooks.analysis.agreement.stages import STAGES, stage_table
from smd_hooks.theory import AdamRule, UpdateRule, equilibrium_angle
from tests.analysis.work_dirs import RULE, TURNED, perfect_samples, turned_samples, weight

STEPS = np.arange(4_000)
DROP = np.where(STEPS < 300, 0.1, 0.01)


def stages_of(samples: dict[str, np.ndarray], rule: UpdateRule = RULE) -> pd.DataFrame:
    count = 1 + int(samples["weight"].max())
    weights = pd.DataFrame([weight(name, rule=rule.to_json()) for name in "abc"[:count]])
    table = stage_table(predict(pd.DataFrame(samples), weights), weights)
    assert tuple(table) == STAGES
    return table


def test_a_drop_and_the_way_back() -> None:
    first, second = stages_of(perfect_samples(STEPS, DROP)).to_dict("records")
    assert (first["first_step"], first["last_step"]) == (0, 299)
    assert (second["first_step"], second["last_step"]) == (300, 3_999)
    assert (first["lr"], second["lr"]) == (0.1, 0.01)
    assert second["equilibrium_angle"] == equilibrium_angle(RULE.at(0.01, RULE.weight_decay))
    assert (first["relaxation_steps"], second["relaxation_steps"]) == pytest.approx((50, 500))
    assert first["length"] == pytest.approx(6)
    assert second["length"] == pytest.approx(3_699 / 500)
    # always there, so that nothing was to be waited for
    assert first["in_equilibrium"]
    assert (first["steps_to_equilibrium"], first["predicted_steps"]) == (0, 0)
    assert math.isnan(first["time_ratio"])
    assert second["ratio_start"] == pytest.approx(10**-0.5, rel=0.05)
    assert second["ratio_end"] == pytest.approx(1, abs=0.01)
    # x falls from 10 to what .95 is: τ·ln(9/(.95⁻² − 1))
    closed = 500 * math.log(9 / (0.95**-2 - 1))
    assert second["predicted_steps"] == pytest.approx(closed, rel=0.01)
    assert second["steps_to_equilibrium"] == pytest.approx(closed, rel=0.01)
    assert second["time_ratio"] == pytest.approx(1, abs=0.01)


def test_control_a_weight_that_takes_half_as_long_again() -> None:
    samples = perfect_samples(STEPS, DROP, weights=2)
    ratio = np.where(STEPS < 300, 1, (1 + 9 * np.exp((300 - STEPS) / 750)) ** -0.5)
    target = [equilibrium_angle(RULE.at(lr, RULE.weight_decay)) for lr in DROP]
    slow = np.repeat(ratio * target, 2)
    samples["angular_update"] = np.where(samples["weight"] == 1, slow, samples["angular_update"])
    table = stages_of(samples)
    ratios = table[table["stage"] == 1].set_index("parameter")["time_ratio"]
    assert ratios.to_dict() == {
        "a": pytest.approx(1, abs=0.01),
        "b": pytest.approx(1.5, abs=0.05),
    }


def test_adamw_relaxes_by_a_time_of_its_own() -> None:
    rule = AdamRule(0.01, 0.1)
    row = stages_of(perfect_samples(STEPS, DROP / 10, rule=rule), rule).iloc[1]
    assert row["relaxation_steps"] == pytest.approx(5_000)
    assert math.isnan(row["steps_to_equilibrium"])
    assert row["predicted_steps"] == pytest.approx(5_000 * math.log(9 / (0.95**-2 - 1)), rel=0.01)


def test_a_ratio_that_passes_through_has_not_arrived() -> None:
    """And one that has arrived, for a relaxation time, is not undone by what comes later."""
    samples = perfect_samples(STEPS, DROP)
    honest = stages_of(samples).iloc[1]["steps_to_equilibrium"]
    early, late = slice(500, 700), slice(3_500, 3_540)
    angle = equilibrium_angle(RULE.at(0.01, RULE.weight_decay))
    samples["angular_update"][early] = angle
    samples["angular_update"][late] = 3 * angle
    assert stages_of(samples).iloc[1]["steps_to_equilibrium"] == pytest.approx(honest, abs=5)
    samples["angular_update"][-20:] = 3 * angle
    assert not stages_of(samples).iloc[1]["in_equilibrium"]


def test_a_stage_that_is_too_short() -> None:
    row = stages_of(perfect_samples(STEPS[:500], DROP[:500])).iloc[1]
    assert row["length"] == pytest.approx(0.4, abs=0.01)
    assert row["ratio_end"] == pytest.approx((1 + 9 * math.exp(-0.4)) ** -0.5, abs=0.02)
    assert not row["in_equilibrium"]
    assert math.isnan(row["steps_to_equilibrium"])
    assert math.isnan(row["time_ratio"])
    assert row["predicted_steps"] == pytest.approx(500 * math.log(9 / (0.95**-2 - 1)), rel=0.01)


def test_a_smooth_schedule_is_one_stage() -> None:
    rates = 0.05 * (1 + np.cos(np.pi * STEPS / STEPS[-1]))
    samples = perfect_samples(STEPS, np.maximum(rates, 1e-12))
    samples["lr"] = rates  # 0 at the end
    table = stages_of(samples)
    assert len(table) == 1
    row = table.iloc[0]
    assert row["lr"] == rates[-2] > 0
    assert row["relaxation_steps"] == pytest.approx(0.1 / (4 * rates[-2] * RULE.weight_decay))
    # ∫ 4ηλ/(1−α)
    assert row["length"] == pytest.approx(4 * rates.sum() * RULE.weight_decay / 0.1, rel=1e-3)
    assert not row["in_equilibrium"]


def test_a_weight_that_is_turned_relaxes_from_nothing() -> None:
    rates = np.where(np.arange(400) < 200, 0.1, 0.01)
    table = stages_of(turned_samples(np.arange(400), rates), TURNED)
    assert table["stage"].tolist() == [0, 1]
    missing = ["relaxation_steps", "length", "predicted_steps", "time_ratio"]
    assert table[missing].isna().all(axis=None)
    assert table["in_equilibrium"].all()
    assert (table["steps_to_equilibrium"] == 0).all()


def test_without_decay_there_is_nothing_to_arrive_at() -> None:
    samples = perfect_samples(np.arange(300), np.full(300, 0.1))
    samples["weight_decay"][:] = 0.0
    row = stages_of(samples).iloc[0]
    assert not row["in_equilibrium"]
    assert row[list(STAGES[6:11])].isna().all()
    assert row[list(STAGES[12:])].isna().all()


def test_nothing_predicted_has_no_stages() -> None:
    weights = pd.DataFrame([weight("a", invariant=False)])
    assert stage_table(predict(pd.DataFrame(), weights), weights).columns.tolist() == list(STAGES)
