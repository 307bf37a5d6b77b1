"""Scores on samples whose agreement is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis import predict, score
from smd_hooks.analysis.agreement import stages, summarize
from tests.analysis.work_dirs import perfect_samples, weight


def scores_of(samples: dict[str, np.ndarray], weights: list[dict]) -> pd.DataFrame:
    table = pd.DataFrame(weights)
    return score(predict(pd.DataFrame(samples), table), table)


def test_perfect_samples_agree_with_everything() -> None:
    steps = np.arange(300)
    result = scores_of(perfect_samples(steps, np.full(300, 0.1)), [weight("a")]).iloc[0]
    assert result["angle_ratio"] == pytest.approx(1, abs=1e-3)
    assert result["norm_ratio"] == pytest.approx(1, abs=1e-3)
    # the momentum buffer is empty at step 0, which the made-up samples do not know
    assert result["trajectory_error"] < 5e-3
    assert result["elapsed"] == pytest.approx(299 / 50, rel=1e-3)


def test_a_drop_is_found_and_followed() -> None:
    steps = np.arange(1_000)
    rates = np.where(steps < 300, 0.1, 0.01)
    table = pd.DataFrame([weight("a")])
    predicted = predict(pd.DataFrame(perfect_samples(steps, rates)), table)
    assert predicted["stage"].max() == 1
    assert predicted["angle_ratio"].iloc[300] == pytest.approx(10**-0.5, abs=0.02)
    # measured = 1.4 relaxation times after the drop
    last = score(predicted, table).iloc[0]
    assert last["elapsed"] == pytest.approx(1.4, abs=0.01)
    assert last["angle_ratio"] == pytest.approx((1 + 9 * np.exp(-1.3)) ** -0.5, abs=0.02)
    assert last["trajectory_error"] < 0.01


@pytest.mark.parametrize("wrong", [0.5, 2.0])
def test_control_a_weight_that_turns_wrongly_fails_both_scores(wrong: float) -> None:
    samples = perfect_samples(np.arange(300), np.full(300, 0.1))
    samples["angular_update"] = samples["angular_update"] * wrong
    result = scores_of(samples, [weight("a")]).iloc[0]
    assert result["angle_ratio"] == pytest.approx(wrong, rel=1e-2)
    assert result["trajectory_error"] == pytest.approx(abs(np.log(wrong)), abs=0.01)


def test_only_scale_invariant_weights_with_a_rule_are_scored() -> None:
    samples = perfect_samples(np.arange(100), np.full(100, 0.1), weights=3)
    weights = [
        weight("kept"),
        weight("not invariant", invariant=False),
        weight("unknown rule", rule=None, no_prediction="no prediction for AdamW"),
    ]
    assert scores_of(samples, weights)["parameter"].tolist() == ["kept"]


def test_without_decay_there_is_a_verdict_but_no_ratio() -> None:
    samples = perfect_samples(np.arange(100), np.full(100, 0.1))
    samples["weight_decay"][:] = 0.0
    table = pd.DataFrame([weight("a")])
    scores = score(predict(pd.DataFrame(samples), table), table)
    summary = summarize(scores, table, measured=True)
    assert "angle_ratio" not in summary
    assert summary["verdict"].startswith("not applicable: no weight decay")


@pytest.mark.parametrize(
    ("weights", "verdict"),
    [
        ([weight("a")], "in equilibrium"),
        ([weight("a", invariant=False)], "nothing is scale-invariant: reaches the loss"),
        ([weight("a", rule=None, no_prediction="no prediction for X")], "no prediction for X"),
        ([{"parameter": "a", "rule": None, "no_prediction": ""}], "too short"),
    ],
)
def test_verdicts(weights: list[dict], verdict: str) -> None:
    table = pd.DataFrame(weights)
    samples = pd.DataFrame(perfect_samples(np.arange(300), np.full(300, 0.1)))
    scored = score(predict(samples, table), table) if "scale_invariant" in table else pd.DataFrame()
    assert summarize(scored, table, measured=True)["verdict"].startswith(verdict)


def test_a_run_that_is_still_climbing_says_so() -> None:
    steps = np.arange(400)
    rates = np.where(steps < 200, 0.1, 0.01)
    table = pd.DataFrame([weight("a")])
    scores = score(predict(pd.DataFrame(perfect_samples(steps, rates)), table), table)
    verdict = summarize(scores, table, measured=True)["verdict"]
    assert verdict == "below equilibrium: 0.4 relaxation times since the last lr change"


def test_without_records() -> None:
    assert summarize(pd.DataFrame(), pd.DataFrame(), measured=False) == {"verdict": "not measured"}


@pytest.mark.parametrize("warmup", [0, 500])
@pytest.mark.parametrize("interval", [1, 50])
def test_a_smooth_schedule_down_to_zero_is_one_stage(warmup: int, interval: int) -> None:
    """Near its end a cosine changes by any ratio from step to step, and so does a warmup."""
    steps = np.arange(0, 20_000, interval)
    rates = 0.05 * (1 + np.cos(np.pi * (steps + 1) / 20_001))
    rates *= np.minimum(1, (steps + 1) / (warmup + 1))
    last = stages(rates) == stages(rates)[-1]
    assert last.mean() > 0.99  # only the first sample of a warmup may stand apart
    samples = perfect_samples(steps, np.maximum(rates, 1e-12))
    samples["angular_update"] *= np.random.default_rng(0).lognormal(0, 0.3, len(steps))
    result = scores_of(samples, [weight("a")]).iloc[0]
    assert result["elapsed"] > 50
    window = max(25, round(0.2 / result["elapsed"] * last.sum()))
    ratio = (samples["angular_update"] / target(samples))[-window:]
    assert result["angle_ratio"] == pytest.approx(np.sqrt(np.mean(ratio**2)), rel=0.01)


def target(samples: dict[str, np.ndarray]) -> np.ndarray:
    """Δ* of heavy ball, first order."""
    return np.sqrt(2 * samples["lr"] * samples["weight_decay"] / 1.9)


def test_every_drop_of_a_step_schedule_begins_a_stage() -> None:
    rates = np.repeat([0.1, 0.01, 0.001, 1e-4], 50)
    assert np.unique(np.flatnonzero(np.diff(stages(rates)))).tolist() == [49, 99, 149]
    short = np.repeat([0.1, 0.05, 0.025], [10, 2, 10])
    assert stages(short).max() == 2


def test_a_few_samples_make_no_equilibrium() -> None:
    samples = perfect_samples(np.arange(3), np.full(3, 0.1))
    table = pd.DataFrame([weight("a")])
    scores = score(predict(pd.DataFrame(samples), table), table)
    assert summarize(scores, table, measured=True)["verdict"].startswith("too short: 3 samples")


def test_a_median_that_hides_its_spread_says_so() -> None:
    samples = perfect_samples(np.arange(300), np.full(300, 0.1), weights=3)
    samples["angular_update"] *= np.choose(samples["weight"], [0.5, 1.0, 1.6])
    table = pd.DataFrame([weight("a"), weight("b"), weight("c")])
    scores = score(predict(pd.DataFrame(samples), table), table)
    verdict = summarize(scores, table, measured=True)["verdict"]
    assert verdict.startswith("in equilibrium in the median, layers from 0.5")
