"""One layer per cause, made so that the cause is known, beside one that lacks it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis import predict, score
from smd_hooks.analysis.diagnosis.causes import (
    ASSUMPTION,
    DRIFT,
    IN_EQUILIBRIUM,
    NO_EQUILIBRIUM,
    NO_PREDICTION,
    NORM_DECAY,
    NOT_INVARIANT,
    OFF_THE_LAW,
    RELAXING,
    ROUNDING,
    TOO_SHORT,
    UNEXPLAINED,
)
from smd_hooks.analysis.diagnosis.diagnose import diagnose
from smd_hooks.theory import (
    AdamRule,
    SGDRule,
    StepMoments,
    UpdateRule,
    drifting_equilibrium_angle,
    equilibrium_angle,
    equilibrium_norm,
    relaxation_time,
    second_moment_trajectory,
)
from tests.analysis.work_dirs import RULE, perfect_samples, weight


def diagnosis(samples: dict[str, np.ndarray], weights: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(weights)
    predicted = predict(pd.DataFrame(samples), table)
    return diagnose(predicted, score(predicted, table), table).set_index("parameter")


def settled(steps: int = 400) -> dict[str, np.ndarray]:
    return perfect_samples(np.arange(steps), np.full(steps, RULE.lr))


def driven(
    moment: np.ndarray, rates: np.ndarray, norm: float = 1.0, rule: UpdateRule = RULE
) -> dict[str, np.ndarray]:
    """A weight that follows the law exactly, from ``norm`` times its first equilibrium on."""
    steps, column = np.arange(len(rates)), np.ones((len(rates), 1))
    law = second_moment_trajectory(
        rule,
        steps,
        rates[:, None],
        column * rule.weight_decay,
        StepMoments(gradient=moment[:, None], alignment=0 * column),
        norm * equilibrium_norm(rule.at(rates[0], rule.weight_decay), moment[0]) * column[0],
        from_first_step=False,
    )
    samples = perfect_samples(steps, rates)
    samples["step"] = steps + 1_000  # at step 0 the momentum would be empty
    samples["weight_norm"] = law.weight_norm[:, 0]
    samples["gradient_norm"] = np.sqrt(moment) / law.weight_norm[:, 0]
    samples["angular_update"] = law.angular_update[:, 0]
    return samples


def test_a_layer_as_it_should_be() -> None:
    found = diagnosis(settled(), [weight("a")]).loc["a"]
    assert found["cause"] == IN_EQUILIBRIUM
    assert found["value"] == pytest.approx(1, abs=0.01)


def test_not_relaxed_after_a_drop() -> None:
    steps = np.arange(500)
    samples = perfect_samples(steps, np.where(steps < 300, 0.1, 0.01))
    found = diagnosis(samples, [weight("a")]).loc["a"]
    assert found["cause"] == RELAXING
    assert found["value"] == pytest.approx(0.4, abs=0.01)
    assert found["detail"].endswith("leave Δ/Δ* at 0.38")


def test_not_relaxed_from_a_large_initial_norm() -> None:
    found = diagnosis(driven(np.ones(60), np.full(60, 0.1), norm=2.0), [weight("a")]).loc["a"]
    assert found["cause"] == RELAXING
    assert found["value"] == pytest.approx(59 / 50, abs=0.01)
    settled_by_now = driven(np.ones(600), np.full(600, 0.1), norm=2.0)
    assert diagnosis(settled_by_now, [weight("a")]).loc["a", "cause"] == IN_EQUILIBRIUM


@pytest.mark.parametrize("ratio", [-0.4, 0.5])
def test_a_driving_moment_that_drifts(ratio: float) -> None:
    drift = ratio / relaxation_time(RULE)
    moment = np.exp(drift * np.arange(500))
    samples = driven(moment, np.full(500, 0.1))
    found = diagnosis(samples, [weight("a")]).loc["a"]
    assert found["cause"] == DRIFT
    assert found["value"] == pytest.approx(ratio, abs=0.02)
    measured = samples["angular_update"][-1] / equilibrium_angle(RULE)
    expected = drifting_equilibrium_angle(RULE, drift) / equilibrium_angle(RULE)
    assert measured == pytest.approx(expected, rel=0.02)


def test_noise_is_no_drift() -> None:
    """What a noisy moment seems to do over a relaxation time is no cause of anything."""
    samples = perfect_samples(np.arange(400), np.full(400, RULE.lr), weights=12)
    noise = np.random.default_rng(0).lognormal(0, 0.15, len(samples["step"]))
    samples["gradient_norm"] *= noise / np.sqrt(np.mean(noise**2))
    samples["angular_update"] *= 1.053
    found = diagnosis(samples, [weight(str(i)) for i in range(12)])
    assert set(found["cause"]) == {UNEXPLAINED}


def test_a_drift_that_lasts_a_fraction_of_a_relaxation_time() -> None:
    """−μτ > 1 has no equilibrium, but it takes time to get there."""
    rates = np.full(400, 0.01)  # τ = 500
    moment = np.exp(-0.006 * np.arange(400))
    samples = driven(moment, rates)
    found = diagnosis(samples, [weight("a")]).loc["a"]
    assert found["cause"] == DRIFT
    assert found["value"] == pytest.approx(-3.0, abs=0.05)


def test_a_layer_off_its_law_beside_norms_that_decay() -> None:
    samples = settled()
    samples["angular_update"] *= 1.3
    conv = weight("conv.weight", norms=["bn"])
    gain = weight("bn.weight", invariant=None, shape=[8], rule=None, weight_decay=0.005)
    without = gain | {"weight_decay": 0.0}
    other = gain | {"parameter": "fc.bias"}
    found = diagnosis(samples, [conv, gain]).loc["conv.weight"]
    assert found["cause"] == NORM_DECAY
    assert found["value"] == pytest.approx(np.log(1.3), abs=0.01)
    assert "bn.weight" in found["detail"]
    for entries in ([conv], [conv, without], [conv, other]):
        assert diagnosis(samples, entries).loc["conv.weight", "cause"] == OFF_THE_LAW
    # norms that decay are no cause where nothing is wrong
    assert diagnosis(settled(), [conv, gain]).loc["conv.weight", "cause"] == IN_EQUILIBRIUM


def test_a_law_fed_with_few_noisy_samples_is_not_called_broken() -> None:
    """Every tenth step measured: an error that would tell at every step tells nothing."""
    noise = np.random.default_rng(0).lognormal(0, 0.3, 400)
    for interval, cause in ((1, OFF_THE_LAW), (10, IN_EQUILIBRIUM)):
        steps = np.arange(0, 400 * interval, interval)
        samples = perfect_samples(steps, np.full(400, RULE.lr))
        samples["gradient_norm"] *= noise / np.sqrt(np.mean(noise**2))
        samples["angular_update"][:-100] *= 1.1  # the law's error, but not the last window's
        assert diagnosis(samples, [weight("a")]).loc["a", "cause"] == cause


def test_rounding_of_low_precision_weights() -> None:
    samples = settled()
    samples["angular_update"] *= 1.3
    angle = equilibrium_angle(RULE)
    coarse = diagnosis(samples, [weight("a", rounding_angle=1.5 * angle)]).loc["a"]
    fine = diagnosis(samples, [weight("a", rounding_angle=0.01 * angle)]).loc["a"]
    assert coarse["cause"] == ROUNDING
    assert coarse["value"] == pytest.approx(1.5 * angle)
    assert fine["cause"] == OFF_THE_LAW


def test_weight_decay_too_strong_for_the_momentum() -> None:
    rule = SGDRule(0.1, 0.05, 0.9)  # ηλ = 5e-3, (1−√α)² = 2.6e-3
    samples = perfect_samples(np.arange(400), np.full(400, 0.1), rule=rule)
    samples["angular_update"] *= 1.3
    found = diagnosis(samples, [weight("a", rule=rule.to_json())]).loc["a"]
    assert found["cause"] == ASSUMPTION
    assert found["value"] == pytest.approx(5e-3 / (1 - 0.9**0.5) ** 2)
    assert "oscillates" in found["detail"]


def test_a_second_moment_that_remembers_too_long() -> None:
    rule = AdamRule(0.1, 0.1)  # τ = 50, β₂ remembers 1000 steps
    samples = perfect_samples(np.arange(400), np.full(400, 0.1), rule=rule, ratio=1.3)
    samples["update_norm"] *= 1.3  # steps as long as the angle says: the law holds
    found = diagnosis(samples, [weight("a", rule=rule.to_json())]).loc["a"]
    assert found["cause"] == ASSUMPTION
    assert found["value"] == pytest.approx(20, rel=0.01)


def test_what_has_no_ratio_has_a_reason() -> None:
    samples = perfect_samples(np.arange(100), np.full(100, 0.1), weights=5)
    samples["weight_decay"][samples["weight"] == 3] = 0.0
    classifier = weight("fc.weight", invariant=False, statistic=0.9)
    found = diagnosis(
        samples,
        [
            classifier,
            weight("unseen.weight", invariant=None, statistic=None, reason="no gradient yet"),
            weight("odd.weight", rule=None, no_prediction="no prediction for X"),
            weight("undecayed.weight"),
            weight("bn.bias", invariant=None, shape=[8]),
            weight("unsampled.weight"),
        ],
    )
    assert "bn.bias" not in found.index
    assert found["cause"].to_dict() == {
        "fc.weight": NOT_INVARIANT,
        "unseen.weight": NOT_INVARIANT,
        "odd.weight": NO_PREDICTION,
        "undecayed.weight": NO_EQUILIBRIUM,
        "unsampled.weight": TOO_SHORT,
    }
    assert found.loc["fc.weight", "value"] == 0.9
    assert found.loc["fc.weight", "detail"] == classifier["reason"]
    assert found.loc["unseen.weight", "detail"] == "no gradient yet"
    assert "no weight decay" in found.loc["undecayed.weight", "detail"]


def test_a_few_samples_say_nothing() -> None:
    found = diagnosis(settled(10), [weight("a")]).loc["a"]
    assert found["cause"] == TOO_SHORT
    assert found["value"] == 10


def test_a_schedule_that_ends_at_zero_has_an_equilibrium_before() -> None:
    samples = settled()
    samples["lr"] = samples["lr"].copy()
    samples["lr"][-1] = 0.0
    samples["angular_update"][-1] = 0.0
    assert diagnosis(samples, [weight("a")]).loc["a", "cause"] == IN_EQUILIBRIUM


def test_a_layer_that_stands_still() -> None:
    samples = settled()
    samples["angular_update"][:] = 0.0
    found = diagnosis(samples, [weight("a")]).loc["a"]
    assert found["cause"] == UNEXPLAINED
    assert found["value"] == 0


def test_nothing_measured_at_all() -> None:
    table = pd.DataFrame([weight("a", invariant=False)])
    predicted = predict(pd.DataFrame(), table)
    found = diagnose(predicted, score(predicted, table), table)
    assert found["cause"].tolist() == [NOT_INVARIANT]
