"""Scores on samples whose agreement is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis import load_runs, predict, score
from smd_hooks.analysis.agreement.windows import stages
from smd_hooks.analysis.diagnosis.summary import summarize
from smd_hooks.analysis.figures import draw_angular_updates
from smd_hooks.theory import AdamRule, LionRule, SGDRule, UpdateRule, equilibrium_norm
from tests.analysis.work_dirs import launch, perfect_samples, weight


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


@pytest.mark.parametrize("warmup", [0, 500])
@pytest.mark.parametrize("interval", [1, 50])
def test_a_smooth_schedule_down_to_zero_is_one_stage(warmup: int, interval: int) -> None:
    """Near its end a cosine changes by any ratio from step to step, and so does a warmup."""
    steps = np.arange(0, 20_000, interval)
    rates = 0.05 * (1 + np.cos(np.pi * (steps + 1) / 20_001))
    rates *= np.minimum(1, (steps + 1) / (warmup + 1))
    numbers = stages(rates, np.ones(len(rates)))
    last = numbers == numbers[-1]
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
    assert np.flatnonzero(np.diff(stages(rates, np.ones(200)))).tolist() == [49, 99, 149]
    short = np.repeat([0.1, 0.05, 0.025], [10, 2, 10])
    assert stages(short, np.ones(22)).max() == 2


def test_a_learning_rate_of_zero_begins_no_stage() -> None:
    cosine = 0.05 * (1 + np.cos(np.pi * np.arange(1_001) / 1_000))
    assert cosine[-1] == 0
    assert stages(cosine, np.ones(1_001)).max() == 0
    rates = np.r_[0.0, np.repeat([0.1, 0.01], 50), 0.0]
    assert stages(rates, np.ones(102)).tolist() == [0] * 51 + [1] * 51


def test_a_jump_of_weight_decay_begins_a_stage_too() -> None:
    steps = np.arange(1_000)
    decay = np.where(steps < 800, 0.02, 0.002)
    samples = perfect_samples(steps, np.full(1_000, 0.1), decay=decay)
    last = scores_of(samples, [weight("a")]).iloc[0]
    assert last["elapsed"] == pytest.approx(199 / 125, rel=1e-3)  # 57.6 if taken for one stage
    # λ / 10 is as η · 10: from r⁴/r*⁴ = 1/10 upwards
    assert last["angle_ratio"] == pytest.approx((1 - 0.9 * np.exp(-1.5)) ** -0.5, abs=0.02)
    assert last["trajectory_error"] < 0.01
    both = stages(np.where(steps < 500, 0.1, 0.01), decay)
    assert np.flatnonzero(np.diff(both)).tolist() == [499, 799]
    assert stages(np.full(1_000, 0.1), 0.02 * (1 - steps / 1_000)).max() == 0


@pytest.mark.parametrize("rule", [SGDRule(0.1, 0.02, 0.9), AdamRule(0.01, 0.1)], ids=repr)
def test_the_norms_ratio_is_held_against_each_samples_own_equilibrium(rule: UpdateRule) -> None:
    """Down to lr 0, where r* of the last sample is a fraction of what it is in the window."""
    steps = np.arange(2_001)
    rates = rule.lr / 2 * (1 + np.cos(np.pi * steps / 2_000))
    samples = perfect_samples(steps, np.maximum(rates, 1e-12), rule=rule)
    # from the parts along and across: a difference of squares leaves nothing of the last steps
    after = samples["weight_norm"] + samples["radial_update"]
    across = after * np.tan(samples["angular_update"])
    samples["update_norm"] = np.hypot(samples["radial_update"], across)
    samples["lr"] = np.where(steps < 2_000, samples["lr"], 0.0)
    result = scores_of(samples, [weight("a", rule=rule.to_json())]).iloc[0]
    window = slice(-int(result["samples"]), -1)
    radius = np.array([equilibrium_norm(rule.at(lr, rule.weight_decay), 1.0) for lr in rates[:-1]])
    wanted = (samples["weight_norm"][window] / radius[window.start + 1 :]).mean()
    assert result["norm_ratio"] == pytest.approx(wanted, rel=0.01)
    # control: r* at the last learning rate alone
    assert samples["weight_norm"][window].mean() / radius[-1] > 2 * wanted


# ------------------------------------------------------------------------- all the families


@pytest.mark.parametrize(
    "rule",
    [
        SGDRule(0.1, 0.02, 0.9, decoupled=True),
        SGDRule(0.1, 0.002, 0.9, nesterov=True),
        AdamRule(0.01, 0.1),
        LionRule(0.01, 0.1),
    ],
    ids=repr,
)
def test_each_family_is_followed_through_a_drop(rule: UpdateRule) -> None:
    rates = np.where(np.arange(1_500) < 300, rule.lr, rule.lr / 4)
    table = pd.DataFrame([weight("a", rule=rule.to_json())])
    samples = perfect_samples(np.arange(1_500), rates, rule=rule)
    predicted = predict(pd.DataFrame(samples), table)
    assert predicted["angle_ratio"].iloc[300] == pytest.approx(0.5, abs=0.03)
    last = score(predicted, table).iloc[0]
    expected = (1 + 3 * np.exp(-last["elapsed"])) ** -0.5
    assert last["angle_ratio"] == pytest.approx(expected, abs=0.02)
    power = 0.5 if isinstance(rule, SGDRule) else 1.0  # steps that shrink as the weight grows
    assert last["norm_ratio"] == pytest.approx(expected**-power, abs=0.02)
    if not (isinstance(rule, SGDRule) and rule.nesterov):
        # the made-up moments are those of a state without Nesterov's correlated steps
        assert last["trajectory_error"] < 0.02


def test_adam_with_l2_is_measured_and_told_why_it_has_no_ratio(tmp_path: Path) -> None:
    samples = perfect_samples(np.arange(300), np.full(300, 0.1))
    entry = weight("a", rule=AdamRule(0.1, 0.005, decoupled=False).to_json())
    table = pd.DataFrame([entry])
    predicted = predict(pd.DataFrame(samples), table)
    assert np.allclose(predicted["measured_angle"], samples["angular_update"])
    summary = summarize(score(predicted, table), table, measured=True)
    assert "angle_ratio" not in summary
    assert summary["verdict"].startswith("not applicable: Adam with L2")
    assert np.isnan(summary["trajectory_error"])
    launch(tmp_path, "20260101_000000", samples=samples, run={"weights": [entry]})
    draw_angular_updates(load_runs(tmp_path), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


# ----------------------------------------------------------------- units and their histories


def test_filters_are_not_scored_with_their_tensor() -> None:
    samples = pd.DataFrame(perfect_samples(np.arange(300), np.full(300, 0.1)))
    filters = samples.assign(unit=np.int32(3), angular_update=samples["angular_update"] * 3)
    table = pd.DataFrame([weight("a")])
    alone = predict(samples, table)
    beside = predict(pd.concat([samples, filters], ignore_index=True), table)
    pd.testing.assert_frame_equal(alone, beside)


def test_records_from_before_units_and_radial_updates_still_read() -> None:
    samples = pd.DataFrame(perfect_samples(np.arange(300), np.full(300, 0.1)))
    table = pd.DataFrame([weight("a")])
    wanted = score(predict(samples, table), table)
    missing = samples.drop(columns=["unit", "radial_update"])
    empty = samples.assign(unit=np.nan, radial_update=np.nan)
    for old in (missing, empty):
        pd.testing.assert_frame_equal(score(predict(old, table), table), wanted)


def interrupted() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Perfect samples, but for steps 200 to 299, when the norm was in eval mode."""
    samples = pd.DataFrame(perfect_samples(np.arange(600), np.full(600, 0.1)))
    frozen = samples["step"].between(200, 299)
    samples.loc[frozen, ["angular_update", "gradient_norm"]] *= 7
    history = [[0, True], [200, False], [300, True]]
    return samples, pd.DataFrame([weight("a", changes=history)])


def test_samples_from_while_a_weight_was_not_invariant_are_left_out() -> None:
    samples, table = interrupted()
    predicted = predict(samples, table)
    assert len(predicted) == 500
    assert not predicted["step"].between(200, 299).any()
    assert predicted.groupby("stage")["step"].agg(["min", "max"]).to_numpy().tolist() == [
        [0, 199],
        [300, 599],
    ]
    last = score(predicted, table).iloc[0]
    assert last["elapsed"] == pytest.approx(299 / 50, rel=1e-3)
    assert predicted["trajectory_error"].max() < 0.06  # an empty momentum buffer at step 0
    # control: without the history these samples spoil what follows
    spoilt = predict(samples, table.drop(columns="changes"))
    assert spoilt.loc[spoilt["step"] >= 300, "trajectory_error"].max() > 0.5


def test_an_interruption_that_no_sample_saw_ends_a_span_too() -> None:
    samples = pd.DataFrame(perfect_samples(np.arange(0, 6_000, 50), np.full(120, 0.1)))
    table = pd.DataFrame([weight("a", changes=[[0, True], [1_010, False], [1_040, True]])])
    predicted = predict(samples, table)
    assert len(predicted) == 120
    assert predicted.loc[predicted["stage"] == 1, "step"].min() == 1_050


def test_a_weight_that_ended_as_not_invariant_is_shown_but_not_scored() -> None:
    samples = pd.DataFrame(perfect_samples(np.arange(300), np.full(300, 0.1), weights=2))
    frozen = weight("frozen", invariant=False, changes=[[0, True], [100, False]])
    table = pd.DataFrame([weight("a", changes=[[0, True]]), frozen])
    predicted = predict(samples, table)
    assert predicted["parameter"].value_counts().to_dict() == {"a": 300, "frozen": 100}
    assert score(predicted, table)["parameter"].tolist() == ["a"]
    assert summarize(score(predicted, table), table, measured=True)["si_params"] == "1/2"


def test_a_joint_group_is_one_unit_of_scores_and_counts_its_members() -> None:
    samples = pd.DataFrame(perfect_samples(np.arange(300), np.full(300, 0.1), weights=4))
    members = [weight(name, invariant=False) for name in ("a.weight", "b.weight")]
    group = weight("a.weight + b.weight", members=["a.weight", "b.weight"], shape=[576])
    gain = weight("bn.weight", invariant=False, shape=[8])
    table = pd.DataFrame([*members, group, gain])
    scores = score(predict(samples, table), table)
    assert scores["parameter"].tolist() == ["a.weight + b.weight"]
    assert summarize(scores, table, measured=True)["si_params"] == "2/2"


@pytest.mark.parametrize("interval", [1, 10, 20, 50, 100])
def test_a_warmup_is_no_jump_at_any_interval(interval: int) -> None:
    """mmdet's own: 500 iterations from a thousandth on; and a milestone, which is one."""
    steps = np.arange(0, 4_000, interval)
    lr = 0.02 * np.minimum(1, 0.001 + 0.999 * steps / 499)
    lr = np.where(steps < 3_000, lr, 0.1 * lr)
    numbers = stages(lr, np.full(len(steps), 1e-4))
    assert numbers[-1] == 1
    assert np.array_equal(numbers, steps >= 3_000)
