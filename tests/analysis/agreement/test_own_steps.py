"""Weights that skip steps of their optimizer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis import diagnose, predict, score
from smd_hooks.analysis.agreement.own_steps import own_steps
from smd_hooks.analysis.diagnosis.diagnose import RELAXING
from tests.analysis.work_dirs import perfect_samples, weight


def skipping(every: int) -> pd.DataFrame:
    """Weight 0 moves at every so many steps of its optimizer, weight 1 at all of them."""
    own = np.arange(1_000)
    lazy = pd.DataFrame(perfect_samples(own, np.where(own < 300, 0.1, 0.01)))
    lazy["step"] *= every
    steps = np.arange(1_000 * every)
    busy = perfect_samples(steps, np.where(steps < 300 * every, 0.1, 0.01))
    return pd.concat([lazy, pd.DataFrame(busy).assign(weight=1)], ignore_index=True)


@pytest.mark.parametrize("every", [1, 3])
def test_a_weight_relaxes_by_the_steps_that_it_takes_itself(every: int) -> None:
    samples = skipping(every)
    entries = [weight("lazy", optimizer="a"), weight("busy", optimizer="a")]
    table = pd.DataFrame(entries)
    predicted = predict(samples, table)
    lazy = predicted[predicted["parameter"] == "lazy"]
    assert lazy["step"].tolist() == list(range(0, 1_000 * every, every))
    assert lazy["own_step"].tolist() == list(range(1_000))
    scores = score(predicted, table).set_index("parameter")
    assert scores.loc["lazy", "elapsed"] == pytest.approx(699 / 500, rel=1e-3)
    assert scores.loc["busy", "elapsed"] == pytest.approx((700 * every - 1) / 500, rel=1e-3)
    assert (scores["trajectory_error"] < 0.01).all()
    causes = diagnose(predicted, scores.reset_index(), table).set_index("parameter")
    assert causes.loc["lazy", "cause"] == RELAXING
    assert causes.loc["lazy", "value"] == pytest.approx(699 / 500, rel=1e-3)
    # records from before optimizers had names: all belong to one
    old = pd.DataFrame([weight("lazy"), weight("busy")])
    pd.testing.assert_frame_equal(predict(samples, old), predicted)


def test_control_steps_of_another_optimizer_are_not_skipped() -> None:
    """A weight alone with its optimizer, sampled at every third step, took all of them."""
    table = pd.DataFrame([weight("lazy", optimizer="a"), weight("busy", optimizer="b")])
    scores = score(predict(skipping(3), table), table).set_index("parameter")
    assert scores.loc["lazy", "elapsed"] == pytest.approx(699 * 3 / 500, rel=1e-3)
    assert scores.loc["lazy", "trajectory_error"] > 0.02


def test_a_sample_stands_for_the_steps_until_its_optimizers_next_one() -> None:
    sampled = np.arange(100, 600, 50)
    assert own_steps(sampled, sampled).tolist() == sampled.tolist()
    assert own_steps(np.array([100, 150, 300, 550]), sampled).tolist() == [100, 150, 200, 250]
    # joined late: what it did not do before its first sample does not count
    assert own_steps(np.array([300, 350]), sampled).tolist() == [100, 150]


def test_a_weight_that_joins_later_begins_with_an_empty_buffer() -> None:
    steps = np.arange(600)
    samples = pd.DataFrame(perfect_samples(steps, np.full(600, 0.1), weights=2))
    late = (samples["weight"] == 1) & (samples["step"] < 300)
    samples = samples[~late]
    table = pd.DataFrame([weight("a"), weight("late")])
    predicted = predict(samples, table)
    angles = predicted.groupby("parameter")["trajectory_angle"].apply(list)
    assert angles["late"][:200] == pytest.approx(angles["a"][:200])
    # a buffer that is there before the first sample says that steps went unseen
    samples.loc[samples["step"] == 300, "gradient_momentum_dot"] = 1e-6
    seen = predict(samples, table).groupby("parameter")["trajectory_angle"].apply(list)
    assert seen["late"][0] > 1.1 * angles["late"][0]
