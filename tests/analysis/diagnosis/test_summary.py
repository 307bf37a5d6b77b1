"""A run's verdict in words, on samples whose agreement is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis import diagnose, predict, score
from smd_hooks.analysis.diagnosis.causes import relaxation_times
from smd_hooks.analysis.diagnosis.summary import summarize
from smd_hooks.theory import AdamRule
from tests.analysis.work_dirs import TURNED, perfect_samples, weight


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
        (
            [weight("a", invariant=False, rule=TURNED.to_json()), weight("b", invariant=False)],
            "nothing is scale-invariant: reaches the loss before any norm; the optimizer sets the "
            "angle of 1 of 2 matrices all the same",
        ),
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
    assert verdict == (
        "below equilibrium: 0.4 relaxation times since the last jump of lr or weight decay"
    )


def test_a_stage_far_shorter_than_a_relaxation_time_has_a_length() -> None:
    assert relaxation_times(2.24) == "2.2 relaxation times"
    assert relaxation_times(0.016) == "0.016 relaxation times"


def test_a_verdict_names_the_cause_that_most_layers_share() -> None:
    samples = perfect_samples(np.arange(600), np.full(600, 0.1), weights=3)
    samples["angular_update"] *= 1.3
    table = pd.DataFrame([weight("a"), weight("b"), weight("c")])
    predicted = predict(pd.DataFrame(samples), table)
    scores = score(predicted, table)
    causes = diagnose(predicted, scores, table)
    assert summarize(scores, table, True)["verdict"] == "above equilibrium by 30%"
    told = summarize(scores, table, True, causes)["verdict"]
    assert told == "above equilibrium by 30%: off the trajectory law in 3 of 3 such layers"


def test_a_unit_without_a_prediction_does_not_speak_for_the_others() -> None:
    samples = perfect_samples(np.arange(300), np.full(300, 0.1), weights=3)
    refused = weight("c", rule=None, no_prediction="no prediction: its members differ")
    table = pd.DataFrame([weight("a"), weight("b"), refused])
    predicted = predict(pd.DataFrame(samples), table)
    scores = score(predicted, table)
    verdict = summarize(scores, table, measured=True)["verdict"]
    assert verdict == "in equilibrium (1 without a prediction)"
    none = pd.DataFrame([refused])
    verdict = summarize(score(pd.DataFrame(), none), none, measured=True)["verdict"]
    assert verdict == "no prediction: its members differ"
    # nor is it among the layers whose cause is counted
    samples["angular_update"] *= 1.3
    predicted = predict(pd.DataFrame(samples), table)
    scores = score(predicted, table)
    verdict = summarize(scores, table, True, diagnose(predicted, scores, table))["verdict"]
    assert verdict == (
        "above equilibrium by 30%: off the trajectory law in 2 of 2 such layers "
        "(1 without a prediction)"
    )


def test_a_weight_of_two_optimizers_is_one_matrix() -> None:
    twice = [weight("a", rule=None, no_prediction="no prediction: x", optimizer=o) for o in "gd"]
    table = pd.DataFrame([*twice, weight("b", invariant=False)])
    samples = pd.DataFrame(perfect_samples(np.arange(300), np.full(300, 0.1), weights=3))
    assert summarize(score(predict(samples, table), table), table, True) == {
        "verdict": "no prediction: x",
        "si_params": "1/2",
    }


def test_without_records() -> None:
    assert summarize(pd.DataFrame(), pd.DataFrame(), measured=False) == {"verdict": "not measured"}


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


def test_adam_without_decay_is_told_that_and_not_how_l2_would_act() -> None:
    samples = perfect_samples(np.arange(300), np.full(300, 0.1))
    samples["weight_decay"][:] = 0.0
    table = pd.DataFrame([weight("a", rule=AdamRule(0.1, 0.0, decoupled=False).to_json())])
    scores = score(predict(pd.DataFrame(samples), table), table)
    verdict = summarize(scores, table, measured=True)["verdict"]
    assert verdict == "not applicable: no weight decay, so no equilibrium"
