"""Rules that turn a weight by a set angle, and what theory says of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from smd_hooks.theory import (
    AdamRule,
    NoPrediction,
    RotationalRule,
    StepMoments,
    check_assumptions,
    decay_factor,
    decay_rate,
    direction_memory,
    drifting_equilibrium_angle,
    driving_moment,
    early_excess,
    equilibrium_angle,
    equilibrium_norm,
    inverse_bias_factor,
    relaxation_ratio,
    relaxation_time,
    rescale_factor,
    rotation_constant,
    second_moment_trajectory,
    step_exponent,
)

RULE = RotationalRule(1e-3, 0.1, rotation_constant(AdamRule(1, 1)), peak_lr=2e-3)


def test_the_angle_follows_lr_and_weight_decay() -> None:
    assert RULE.peak_angle == pytest.approx(0.004588, abs=1e-6)
    assert equilibrium_angle(RULE) == RULE.angular_update == pytest.approx(RULE.peak_angle / 2)
    assert equilibrium_angle(RULE.at(1e-3, 0.4)) == pytest.approx(RULE.peak_angle)
    root = RotationalRule(1e-3, 0.1, RULE.constant, 2e-3, schedule="sqrt")
    assert root.angular_update == pytest.approx(RULE.peak_angle / math.sqrt(2))
    given_angle = RotationalRule(1e-3, 0.0, RULE.constant, 2e-3, angle=0.02)
    assert equilibrium_angle(given_angle) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"constant": 0.0}, "constant=0.0: not positive"),
        ({"peak_lr": 0.0}, "peak_lr=0.0: not positive"),
        ({"angle": -0.1}, "angle=-0.1: not positive"),
        ({"schedule": "cosine"}, "schedule='cosine': not linear or sqrt"),
        ({"corrected_beta": 1.0}, r"corrected_beta=1.0: not in \[0, 1\)"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(NoPrediction, match=reason):
        RotationalRule(**{**vars(RULE), **settings})


def test_where_nothing_is_turned_there_is_no_angle() -> None:
    with pytest.raises(NoPrediction, match="learning rate is 0"):
        equilibrium_angle(RULE.at(0.0, 0.1))
    with pytest.raises(NoPrediction, match="no weight decay and no angle"):
        equilibrium_angle(RULE.at(1e-3, 0.0))


@pytest.mark.parametrize(
    "ask",
    [
        decay_rate,
        decay_factor,
        direction_memory,
        step_exponent,
        relaxation_time,
        lambda rule: rescale_factor(rule, 10.0),
        lambda rule: equilibrium_norm(rule, 1.0),
        lambda rule: drifting_equilibrium_angle(rule, 1e-3),
        lambda rule: driving_moment(rule, StepMoments()),
        lambda rule: check_assumptions(rule, np.arange(10), np.ones(10)),
    ],
)
def test_what_a_kept_norm_leaves_nothing_to_say_about(ask: Any) -> None:
    for rule in (RULE, RULE.at(0.0, 0.0)):
        with pytest.raises(NoPrediction, match="set angle and keeps its norm"):
            ask(rule)


def test_the_law_of_a_set_angle() -> None:
    rates = np.array([[1e-3, 2e-3], [2e-3, 2e-3], [5e-4, 0.0]])
    decay = np.full((3, 2), 0.1)
    norms = np.array([3.0, 7.0])
    law = second_moment_trajectory(RULE, [4, 5, 9], rates, decay, StepMoments(), norms)
    assert np.array_equal(law.weight_norm, np.tile(norms, (3, 1)))
    assert law.angular_update == pytest.approx(RULE.peak_angle * rates / 2e-3)
    one_by_one = [[RULE.at(lr, 0.1).angular_update for lr in row] for row in rates]
    assert np.array_equal(law.angular_update, one_by_one)
    # control: an ordinary rule with these norms and the same steps lets them shrink
    ordinary = second_moment_trajectory(
        AdamRule(1e-3, 0.1), [4, 5, 9], rates, decay, StepMoments(direction=0 * rates), norms
    )
    assert (ordinary.weight_norm[-1] < norms).all()
    ones = relaxation_ratio(RULE, [4, 5, 9], rates[:, 0], decay[:, 0])
    assert ones.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_law_knows_an_inverse_bias_correction(nesterov: bool) -> None:
    rule = RotationalRule(**{**vars(RULE), "corrected_beta": 0.98, "nesterov": nesterov})
    column = np.ones((3, 1))
    steps = np.array([0, 9, 99])
    settings = (rule, steps, 1e-3 * column, 0.1 * column, StepMoments(), np.ones(1))
    factors = inverse_bias_factor(0.98, steps + 1.0, nesterov)
    law = second_moment_trajectory(*settings)
    assert law.angular_update[:, 0] == pytest.approx(factors * rule.angular_update)
    assert early_excess(rule, steps + 1.0) == pytest.approx(factors**2)
    late = second_moment_trajectory(*settings, from_first_step=False)
    assert late.angular_update[:, 0] == pytest.approx(rule.angular_update)
    assert early_excess(RULE, steps + 1.0).tolist() == [1.0, 1.0, 1.0]


# ------------------------------------------------------------------------------- why at all


@pytest.mark.parametrize(("lr", "first"), [(4.8e-3, 0.24), (6e-4, 0.030)])
def test_adamws_first_step_in_gpt2(lr: float, first: float) -> None:
    """Without warmup, at init .02: its u is a sign vector, late ones are smaller."""
    rule = AdamRule(lr, 0.1)
    size = math.sqrt(early_excess(rule, 1) / direction_memory(rule))
    assert lr * size / 0.02 == pytest.approx(first, rel=1e-3)


def test_that_step_is_34_times_its_equilibrium() -> None:
    rule = AdamRule(4.8e-3, 0.1)
    assert equilibrium_angle(rule) == pytest.approx(0.0071, abs=2e-5)
    assert 0.24 / equilibrium_angle(rule) == pytest.approx(34, abs=0.5)


def test_adamws_updates_shrink_to_what_liona_takes_at_once() -> None:
    """Measured update RMS over lr of torch's AdamW under white gradients, betas (.9, .95)."""
    measured = {1: 1.0, 2: 0.707, 5: 0.450, 10: 0.329, 20: 0.257, 50: 0.227, 400: 0.226}
    rule = AdamRule(1e-3, 0.1, 0.9, 0.95)
    for t, size in measured.items():
        expected = math.sqrt(early_excess(rule, t) / direction_memory(rule))
        assert expected == pytest.approx(size, rel=0.02)
    scale = math.sqrt(0.1 / 1.9)
    assert scale == pytest.approx(measured[400], rel=0.02)
    assert scale < 0.25 * measured[1]
