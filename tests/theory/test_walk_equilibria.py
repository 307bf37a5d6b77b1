"""Equilibrium angle and norm of every rule against random walks on the sphere."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest

from smd_hooks.theory import (
    AdamRule,
    LionRule,
    NoPrediction,
    SGDRule,
    StepMoments,
    UpdateRule,
    direction_memory,
    drifting_equilibrium_angle,
    driving_moment,
    equilibrium_angle,
    equilibrium_norm,
    relaxation_time,
    second_moment_trajectory,
)

from .walks import ELEMENTS, Walk

RULES: dict[str, UpdateRule] = {
    "sgd": SGDRule(0.1, 0.02),
    "heavy_ball": SGDRule(0.1, 0.005, 0.9),
    "damped": SGDRule(0.2, 0.005, 0.9, dampening=0.5),
    "nesterov": SGDRule(0.1, 0.005, 0.9, nesterov=True),
    "sgdw": SGDRule(0.02, 0.25, 0.9, decoupled=True),
    "damped_sgdw": SGDRule(0.04, 0.125, 0.9, 0.5, decoupled=True),
    "nesterov_sgdw": SGDRule(0.02, 0.1, 0.9, nesterov=True, decoupled=True),
    "adamw": AdamRule(0.004, 1.0, 0.9, 0.99),
    "lion": LionRule(8e-4, 2.5, 0.9, 0.95),
    "sign_of_mean": LionRule(1e-3, 4.0, 0.9, 0.9),
    "sign_of_nesterov_mean": LionRule(5e-4, 4.0, 0.81, 0.9, scale=2.0),
    "sign": LionRule(4e-3, 1.0, 0.0, 0.0),
}
LAST = 400


@lru_cache
def settled(name: str, alignment: float = 0.0) -> Walk:
    """A walk that has come to rest, from 5 % beside where white gradients would leave it."""
    rule = RULES[name]
    start = 1.0 if isinstance(rule, SGDRule) else 1.05 * equilibrium_norm(rule, elements=ELEMENTS)
    steps = LAST + int(6 * relaxation_time(rule))
    return Walk(rule, np.full(min(steps, 1_500), rule.lr), start, alignment)


@pytest.mark.parametrize("name", RULES)
def test_walks_turn_by_the_equilibrium_angle(name: str) -> None:
    assert settled(name).end_angle(LAST) == pytest.approx(equilibrium_angle(RULES[name]), rel=0.01)


@pytest.mark.parametrize("name", RULES)
def test_walks_come_to_the_norm_of_their_driving_moment(name: str) -> None:
    walk, rule = settled(name), RULES[name]
    moment = driving_moment(rule, walk.end_moments(LAST)).item()
    assert walk.norm[-LAST:].mean() == pytest.approx(equilibrium_norm(rule, moment), rel=0.01)


@pytest.mark.parametrize("name", ["adamw", "lion", "sign_of_mean", "sign_of_nesterov_mean", "sign"])
def test_normalized_steps_tell_the_norm_beforehand(name: str) -> None:
    expected = equilibrium_norm(RULES[name], elements=ELEMENTS)
    assert settled(name).norm[-LAST:].mean() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("heavy_ball", math.sqrt(2 * 0.1 * 0.005)),  # √(2ηλ), right without momentum only
        ("adamw", math.sqrt(2 * 0.004 * 1.0)),
        ("nesterov", equilibrium_angle(SGDRule(0.1, 0.005, 0.9))),  # heavy ball's
        ("sgdw", equilibrium_angle(SGDRule(0.02, 0.25, 0.9))),  # coupled
        # √(πηλ·s²), which takes sign() for linear
        ("sign_of_mean", math.sqrt(math.pi * 1e-3 * 4.0 * 0.1 / 1.9)),
        (
            "sign_of_nesterov_mean",
            math.sqrt(math.pi * 5e-4 * 4.0 * 0.01 * (1.9**2 + 0.9**4 / 0.19)),
        ),
    ],
)
def test_control_wrong_formulas_fail_the_same_check(name: str, wrong: float) -> None:
    assert settled(name).end_angle(LAST) != pytest.approx(wrong, rel=0.02)


@pytest.mark.parametrize("name", ["heavy_ball", "nesterov", "sgdw", "lion"])
@pytest.mark.parametrize("alignment", [0.3, -0.2])
def test_the_driving_moment_knows_of_aligned_gradients(name: str, alignment: float) -> None:
    walk, rule = settled(name, alignment), RULES[name]
    moment = driving_moment(rule, walk.end_moments(LAST)).item()
    assert walk.norm[-LAST:].mean() == pytest.approx(equilibrium_norm(rule, moment), rel=0.01)


@pytest.mark.parametrize("name", ["heavy_ball", "sgdw"])
@pytest.mark.parametrize("alignment", [0.3, -0.2])
def test_control_the_norm_from_gradients_alone_is_wrong(name: str, alignment: float) -> None:
    walk, rule = settled(name, alignment), RULES[name]
    naive = equilibrium_norm(rule, walk.end_moments(LAST).need("gradient").item())
    assert abs(walk.norm[-LAST:].mean() / naive - 1) > 0.15


@pytest.mark.parametrize("alignment", [0.3, -0.2])
def test_control_nesterov_with_heavy_balls_moment_is_wrong(alignment: float) -> None:
    walk = settled("nesterov", alignment)
    moment = driving_moment(RULES["heavy_ball"], walk.end_moments(LAST)).item()
    off = walk.norm[-LAST:].mean() / equilibrium_norm(RULES["nesterov"], moment)
    assert abs(off - 1) > 0.01


@pytest.mark.parametrize("alignment", [0.3, -0.2])
def test_alignment_leaves_heavy_balls_angle_and_moves_lions(alignment: float) -> None:
    """What the docstrings say of where the white-gradient angle holds."""
    ratios = {
        name: settled(name, alignment).end_angle(LAST) / equilibrium_angle(RULES[name])
        for name in ("heavy_ball", "lion")
    }
    assert ratios["heavy_ball"] == pytest.approx(1, abs=0.01)
    assert abs(ratios["lion"] - 1) > 0.08


def test_adam_with_l2_settles_where_its_gradient_says() -> None:
    rule = AdamRule(0.004, 0.032, 0.9, 0.99, decoupled=False)
    sizes = np.exp(np.random.default_rng(1).normal(size=ELEMENTS) / 2)
    sizes /= np.sqrt((sizes**2).mean())
    walk = Walk(rule, np.full(1_500, rule.lr), sizes=sizes)
    moment = float(sizes.sum() / math.sqrt(ELEMENTS))
    assert walk.norm[-LAST:].mean() == pytest.approx(equilibrium_norm(rule, moment), rel=0.02)
    assert walk.end_angle(LAST) == pytest.approx(
        equilibrium_angle(rule, moment, ELEMENTS), rel=0.02
    )
    # control: the RMS over coordinates in place of the sum of RMSs
    assert walk.norm[-LAST:].mean() != pytest.approx(
        equilibrium_norm(rule, math.sqrt(ELEMENTS)), rel=0.02
    )


@pytest.mark.parametrize("share", [-0.5, 1.0])
def test_a_drifting_gradient_moves_the_angle(share: float) -> None:
    rule = RULES["heavy_ball"]
    drift = share / relaxation_time(rule)
    walk = Walk(rule, np.full(800, rule.lr), growth=math.exp(drift / 2))
    expected = drifting_equilibrium_angle(rule, drift)
    assert walk.end_angle(300) == pytest.approx(expected, rel=0.015)
    assert expected != pytest.approx(equilibrium_angle(rule), rel=0.2)


@pytest.mark.parametrize("share", [-0.5, 1.0])
def test_a_drifting_step_moves_adamws_angle(share: float) -> None:
    """Its own step length does not drift, so it is held against the second-moment law."""
    rule = AdamRule(0.01, 0.2)
    drift = share / relaxation_time(rule)
    steps = np.arange(6_000)[:, None]
    column = np.ones((6_000, 1))
    law = second_moment_trajectory(
        rule,
        steps[:, 0],
        column * rule.lr,
        column * rule.weight_decay,
        StepMoments(direction=np.exp(drift * steps)),
        np.ones(1),
    )
    assert law.angular_update[-1, 0] == pytest.approx(
        drifting_equilibrium_angle(rule, drift), rel=0.01
    )


def test_a_moment_that_falls_faster_than_the_norm_has_no_equilibrium() -> None:
    rule = RULES["heavy_ball"]
    with pytest.raises(NoPrediction, match="faster"):
        drifting_equilibrium_angle(rule, -1.0 / relaxation_time(rule))


def test_the_memory_of_signs_is_the_arcsine_sum() -> None:
    """The closed tail against a plain sum over kernels, lag by lag."""
    for first, second in [(0.9, 0.99), (0.9, 0.9), (0.95, 0.98), (0.0, 0.9), (0.3, 0.0)]:
        kernel = first * (1 - second) * second ** np.arange(4_000.0)
        kernel = np.r_[1 - first, kernel]
        lags = np.array([(kernel[k:] * kernel[: len(kernel) - k]).sum() for k in range(4_000)])
        correlation = np.arcsin(np.minimum(lags / lags[0], 1.0)) * 2 / math.pi
        plain = 2 * correlation.sum() - 1
        assert direction_memory(LionRule(1e-3, 0.1, first, second)) == pytest.approx(
            plain, rel=1e-8
        )
