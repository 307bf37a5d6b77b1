from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis import predict, score
from smd_hooks.analysis.report.series import layer_names, layer_series, stage_marks
from smd_hooks.theory import AdamRule, SGDRule, UpdateRule
from tests.analysis.work_dirs import TURNED, perfect_samples, turned_samples, weight

STEPS = np.arange(800)
RATES = np.where(STEPS < 300, 0.1, 0.01)


def _predicted(weights: pd.DataFrame, samples: dict[str, np.ndarray] | None = None) -> pd.DataFrame:
    samples = samples or perfect_samples(STEPS, RATES, weights=len(weights))
    return predict(pd.DataFrame(samples), weights)


def _weights(*entries: dict) -> pd.DataFrame:
    return pd.DataFrame(list(entries))


def test_values_are_those_of_the_last_sample() -> None:
    weights = _weights(weight("a.weight"), weight("b.weight"))
    predicted = _predicted(weights)
    # the second layer is sampled half as often, from step 100 on
    odd = (predicted["weight"] == 1) & ((predicted["step"] % 2 == 1) | (predicted["step"] < 100))
    predicted = predicted[~odd]
    series = layer_series(predicted, weights, 50)
    columns = {
        "angle": "measured_angle",
        "law": "trajectory_angle",
        "target": "equilibrium_angle",
        "ratio": "angle_ratio",
    }
    for quantity, column in columns.items():
        for layer, index in enumerate(series.weights):
            frame = predicted[predicted["weight"] == index]
            expected = [
                frame.loc[frame["step"] <= step, column].iloc[-1]
                if (frame["step"] <= step).any()
                else math.nan
                for step in series.steps
            ]
            assert getattr(series, quantity)[layer] == pytest.approx(expected, nan_ok=True)
    assert np.isnan(series.ratio[1]).sum() == (series.steps < 100).sum() > 3


def test_both_sides_of_a_jump_survive_thinning() -> None:
    weights = _weights(weight("a.weight"))
    predicted = _predicted(weights)
    thinned = layer_series(predicted, weights, 20).steps
    assert {0, 299, 300, 799} <= set(thinned)
    assert len(thinned) <= 22
    smooth = layer_series(predicted.assign(stage=0), weights, 20).steps
    assert not {299, 300} <= set(smooth)  # control


def test_a_layer_has_a_gap_where_it_is_not_scale_invariant() -> None:
    changes = [[0, True], [200, False], [400, True]]
    weights = _weights(weight("a.weight", changes=changes), weight("b.weight", changes=None))
    series = layer_series(_predicted(weights), weights, 100)
    between = (series.steps >= 202) & (series.steps < 400)
    assert np.isnan(series.ratio[0][between]).all()
    assert not np.isnan(series.ratio[0][~between]).any()
    assert not np.isnan(series.ratio[1]).any()


def test_norms_and_angles_of_sgd_go_together() -> None:
    """Δ ∝ 1/r² at a fixed driving moment, so (r/r*)² · Δ/Δ* = 1 on the way to equilibrium."""
    weights = _weights(weight("a.weight"))
    samples = perfect_samples(STEPS, RATES)
    series = layer_series(_predicted(weights, samples), weights, len(STEPS))
    ratio = samples["angular_update"] / series.target[0]
    assert ratio[300] == pytest.approx(10**-0.5, rel=0.01)
    assert series.norm_ratio[0] ** 2 * ratio == pytest.approx(np.ones(len(STEPS)), rel=0.02)
    # control: gradients of twice the size have another equilibrium norm, by √2
    stronger = {**samples, "gradient_norm": 2 * samples["gradient_norm"]}
    series = layer_series(_predicted(weights, stronger), weights, len(STEPS))
    assert series.norm_ratio[0] ** 2 * ratio == pytest.approx(np.full(len(STEPS), 0.5), rel=0.02)


@pytest.mark.parametrize("rule", [AdamRule(2e-3, 0.1), SGDRule(0.1, 0.005, 0.9)])
def test_norms_end_where_the_score_has_them(rule: UpdateRule) -> None:
    weights = _weights(weight("a.weight", rule=rule.to_json()))
    rates = np.where(STEPS < 300, rule.lr, rule.lr / 10)
    predicted = _predicted(weights, perfect_samples(STEPS, rates, rule=rule))
    series = layer_series(predicted, weights, len(STEPS))
    scored = score(predicted, weights).iloc[0]
    last = series.norm_ratio[0][-int(scored["samples"]) :]
    assert last.mean() == pytest.approx(scored["norm_ratio"], rel=1e-3)
    assert not 0.9 < last.mean() < 1.1  # far from equilibrium, where all exponents agree


def test_turned_weights_are_compared_with_their_first_norm() -> None:
    weights = _weights(weight("a.weight", rule=TURNED.to_json()))
    samples = turned_samples(STEPS, RATES)
    samples["weight_norm"] = np.linspace(3.0, 6.0, len(STEPS))
    series = layer_series(_predicted(weights, samples), weights, 10)
    assert series.norm_ratio[0][[0, -1]] == pytest.approx([1.0, 2.0])


def test_no_equilibrium_no_norm() -> None:
    weights = _weights(weight("a.weight"))
    samples = perfect_samples(STEPS, RATES)
    samples["gradient_momentum_dot"] = np.full(len(STEPS), -1e3)  # a negative driving moment
    series = layer_series(_predicted(weights, samples), weights, 10)
    assert np.isnan(series.norm_ratio).all()
    assert not np.isnan(series.ratio).any()


def test_names_are_short_where_they_stay_unique() -> None:
    weights = _weights(
        weight("a.weight"),
        weight("b"),
        weight("b.weight"),
        weight("c.weight", optimizer="generator"),
        weight("c.weight", optimizer="discriminator"),
    )
    names = layer_names(weights)
    assert names[:3] == ["a", "b", "b.weight"]
    assert names[3:] == ["c.weight (generator)", "c.weight (discriminator)"]


def test_stages_are_marked_where_they_begin() -> None:
    weights = _weights(weight("a.weight"), weight("b.weight"))
    samples = perfect_samples(STEPS, RATES, weights=2)
    samples["weight_decay"] = np.where(samples["step"] < 500, 0.005, 0.02)
    assert stage_marks(_predicted(weights, samples)) == [
        {"step": 0, "iteration": 0, "lr": 0.1},
        {"step": 300, "iteration": 300, "lr": 0.01},
        {"step": 500, "iteration": 500, "lr": 0.01, "weight_decay": 0.02},
    ]
