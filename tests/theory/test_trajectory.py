"""The laws along a schedule against random walks on the sphere, which know nothing of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from smd_hooks.theory import (
    AdamRule,
    LionRule,
    NoPrediction,
    SGDRule,
    StepMoments,
    Trajectory,
    UpdateRule,
    drifting_equilibrium_angle,
    early_excess,
    equilibrium_angle,
    relaxation_ratio,
    relaxation_time,
    rescale_factor,
    second_moment_trajectory,
)

from .walks import Walk

RULES: dict[str, UpdateRule] = {
    "sgd": SGDRule(0.1, 0.005),
    "heavy_ball": SGDRule(0.1, 0.005, 0.9),
    "damped": SGDRule(0.2, 0.005, 0.9, dampening=0.5),
    "nesterov": SGDRule(0.1, 0.005, 0.9, nesterov=True),
    "sgdw": SGDRule(0.02, 0.1, 0.9, decoupled=True),
    "damped_sgdw": SGDRule(0.04, 0.05, 0.9, dampening=0.5, decoupled=True),
    "nesterov_sgdw": SGDRule(0.02, 0.1, 0.9, nesterov=True, decoupled=True),
    "adamw": AdamRule(0.004, 0.5, 0.9, 0.95),
    "lion": LionRule(4e-4, 2.5, 0.9, 0.95),
    "sign_of_mean": LionRule(1e-3, 2.0, 0.9, 0.9),
    "sign_of_nesterov_mean": LionRule(1e-3, 2.0, 0.81, 0.9),
}
SGD_FAMILY = [name for name, rule in RULES.items() if isinstance(rule, SGDRule)]


def follow(
    rule: UpdateRule, rates: np.ndarray, walk: Walk, moments: StepMoments | None = None
) -> Trajectory:
    column = np.ones((len(rates), 1))
    return second_moment_trajectory(
        rule,
        np.arange(len(rates)),
        rates[:, None],
        column * rule.weight_decay,
        steady(rule, moments or walk.moments),
        walk.norm[:1],
        walk.rescale,
    )


def steady(rule: UpdateRule, moments: StepMoments) -> StepMoments:
    """Moments from the first step on as the law wants them, free of bias correction."""
    if moments.direction is None:
        return moments
    seen = np.arange(1, len(moments.direction) + 1)[:, None]
    return replace(moments, direction=moments.direction / early_excess(rule, seen))


def norm_error(law: Trajectory, walk: Walk) -> np.ndarray:
    return np.abs(np.log(law.weight_norm[:, 0] / walk.norm))


def angle_error(law: Trajectory, walk: Walk) -> np.ndarray:
    return np.abs(np.log(law.angular_update[:, 0] / walk.angle))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("alignment", [0.0, 0.3, -0.2])
def test_the_law_follows_a_walk_through_a_drop(name: str, alignment: float) -> None:
    rule = RULES[name]
    rates = np.r_[np.full(150, rule.lr), np.full(100, rule.lr / 10)]
    walk = Walk(rule, rates, alignment=alignment)
    law = follow(rule, rates, walk)
    # gradients aligned with momentum are not orthogonal to the weight once preconditioned
    limit = 0.02 if isinstance(rule, AdamRule) and alignment else 0.005
    assert norm_error(law, walk).max() < limit
    assert np.median(angle_error(law, walk)) < limit


@pytest.mark.parametrize("name", ["heavy_ball", "sgdw", "adamw", "lion"])
def test_the_law_follows_a_rescaled_walk(name: str) -> None:
    rule = RULES[name]
    rates = np.r_[np.full(150, rule.lr), np.full(100, rule.lr / 10)]
    walk = Walk(rule, rates, rescale_at={150: rescale_factor(rule, 10)})
    law = follow(rule, rates, walk)
    assert norm_error(law, walk).max() < 0.005
    assert angle_error(law, walk)[5:].max() < 0.015
    # control: the same law, not told of the factor
    untold = follow(rule, rates, replace_rescale(walk, np.ones_like(walk.rescale)))
    assert norm_error(untold, walk)[150:].min() > 0.1


def replace_rescale(walk: Walk, rescale: np.ndarray) -> Walk:
    other = object.__new__(Walk)
    other.__dict__.update(walk.__dict__, rescale=rescale)
    return other


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("nesterov", RULES["heavy_ball"]),
        ("sgdw", SGDRule(0.02, 0.1, 0.9)),
        ("nesterov_sgdw", RULES["sgdw"]),
        ("adamw", AdamRule(0.004, 0.5, 0.5)),
    ],
)
def test_control_the_law_of_another_rule_fails(name: str, wrong: UpdateRule) -> None:
    rule = RULES[name]
    rates = np.full(300, rule.lr)
    walk = Walk(rule, rates, alignment=0.3)
    assert np.median(angle_error(follow(wrong, rates, walk), walk)[100:]) > 0.03


@pytest.mark.parametrize("alignment", [0.3, -0.2])
def test_control_the_law_fed_with_gradients_alone_is_worse(alignment: float) -> None:
    rule = RULES["heavy_ball"]
    rates = np.full(300, rule.lr)
    walk = Walk(rule, rates, alignment=alignment)
    alone = replace(walk.moments, alignment=np.zeros_like(walk.moments.need("alignment")))
    fed, starved = (follow(rule, rates, walk, m) for m in (walk.moments, alone))
    assert np.median(angle_error(starved, walk)) > 10 * np.median(angle_error(fed, walk))
    assert np.median(norm_error(starved, walk)) > 0.1


def test_plain_sgd_needs_no_alignment_and_other_rules_say_what_they_lack() -> None:
    rates = np.full(50, 0.1)
    walk = Walk(RULES["sgd"], rates)
    moments = StepMoments(gradient=walk.moments.gradient)
    assert norm_error(follow(RULES["sgd"], rates, walk, moments), walk).max() < 0.005
    with pytest.raises(ValueError, match="needs `alignment`"):
        follow(RULES["heavy_ball"], rates, walk, moments)
    with pytest.raises(ValueError, match="needs `radial`"):
        follow(RULES["lion"], rates, walk, moments)


def test_adam_with_l2_has_no_law() -> None:
    rates = np.full(5, 0.1)
    walk = Walk(RULES["sgd"], rates)
    rule = AdamRule(0.1, 0.1, decoupled=False)
    with pytest.raises(NoPrediction, match="depends on the gradient"):
        follow(rule, rates, walk)
    with pytest.raises(NoPrediction, match="depends on the gradient"):
        relaxation_ratio(rule, np.arange(5), rates, rates)


@pytest.mark.parametrize("name", ["heavy_ball", "nesterov", "sgdw", "adamw", "lion"])
def test_a_late_start_needs_no_momentum_history(name: str) -> None:
    rule, late = RULES[name], 200
    rates = np.full(2 * late, rule.lr)
    walk = Walk(rule, rates)
    column = np.ones((late, 1))
    law = second_moment_trajectory(
        rule,
        np.arange(late, 2 * late),
        column * rule.lr,
        column * rule.weight_decay,
        walk.moments[late:],
        walk.norm[late : late + 1],
        from_first_step=False,
    )
    assert np.abs(np.log(law.angular_update[:, 0] / walk.angle[late:])).max() < 0.05


@pytest.mark.parametrize("name", ["heavy_ball", "adamw", "lion"])
def test_sparse_samples_hold_the_earlier_value(name: str) -> None:
    """Every 10th step measured: the law still walks all steps between."""
    rule = RULES[name]
    walk = Walk(rule, np.full(401, rule.lr))
    some = slice(100, None, 10)
    column = np.ones((31, 1))
    law = second_moment_trajectory(
        rule,
        np.arange(100, 401, 10),
        column * rule.lr,
        column * rule.weight_decay,
        walk.moments[some],
        walk.norm[100:101],
        from_first_step=False,
    )
    assert np.abs(np.log(law.weight_norm[:, 0] / walk.norm[some])).max() < 0.02


def test_layers_do_not_know_of_each_other() -> None:
    """Vectorised over layers is each layer alone."""
    rule = RULES["nesterov"]
    rates = np.full(60, rule.lr)
    walks = [Walk(rule, rates, start) for start in (0.5, 1.0, 2.0)]
    alone = [follow(rule, rates, walk) for walk in walks]
    fields = [walk.measured for walk in walks]
    together = second_moment_trajectory(
        rule,
        np.arange(60),
        np.repeat(rates[:, None], 3, axis=1),
        np.full((60, 3), rule.weight_decay),
        StepMoments(*map(np.hstack, zip(*fields, strict=True))),
        np.array([walk.norm[0] for walk in walks]),
    )
    each = np.hstack([a.angular_update for a in alone])
    assert np.allclose(together.angular_update, each, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", RULES)
def test_the_law_does_not_change_with_the_unit_of_the_weight(name: str) -> None:
    """(w, η, λ) → (c·w, c²η, λ/c²) for SGD, (c·w, cη, λ/c) where steps are normalized."""
    rule, c = RULES[name], 3.0
    walk = Walk(rule, np.full(40, rule.lr))
    power = 2 if name in SGD_FAMILY else 1
    moments = walk.moments
    if isinstance(rule, LionRule):
        moments = replace(moments, radial=moments.need("radial") * c)
    column = np.ones((40, 1))

    def law(scale: float, m: StepMoments, decay: float) -> Trajectory:
        return second_moment_trajectory(
            rule,
            np.arange(40),
            column * rule.lr * scale**power,
            column * decay,
            m,
            walk.norm[:1] * scale,
        )

    there = law(c, moments, rule.weight_decay / c**power)
    here = law(1.0, walk.moments, rule.weight_decay)
    assert np.allclose(there.angular_update, here.angular_update, rtol=1e-10)
    assert np.allclose(there.weight_norm, c * here.weight_norm, rtol=1e-10)
    # control: with weight decay left alone the trajectories part
    apart = law(c, moments, rule.weight_decay)
    assert not np.allclose(apart.weight_norm, c * here.weight_norm, rtol=1e-3)


@pytest.mark.parametrize("name", RULES)
def test_the_a_priori_curve_is_the_closed_form_after_a_drop(name: str) -> None:
    rule, k = RULES[name], 10
    steps = np.arange(2_000)
    rates = np.where(steps < 500, rule.lr, rule.lr / k)
    ratio = relaxation_ratio(rule, steps, rates, np.full(2_000, rule.weight_decay))
    elapsed = (steps[500:] - 500) / relaxation_time(rule.at(rule.lr / k, rule.weight_decay))
    closed = (1 + (k - 1) * np.exp(-elapsed)) ** -0.5
    assert np.allclose(ratio[:500], 1)
    assert np.allclose(ratio[500:], closed)
    assert closed[0] == pytest.approx(10**-0.5)


@pytest.mark.parametrize("name", ["heavy_ball", "adamw", "sign_of_mean"])
def test_the_a_priori_curve_is_a_walks_after_a_drop(name: str) -> None:
    """From equilibrium, lr / 4: what the walk's angle is of its new equilibrium angle."""
    rule = RULES[name]
    rates = np.r_[np.full(600, rule.lr), np.full(400, rule.lr / 4)]
    start = {"heavy_ball": 1.0, "adamw": 1.2, "sign_of_mean": 1.3}[name]
    walk = Walk(rule, rates, start)
    curve = relaxation_ratio(rule, np.arange(1_000), rates, np.full(1_000, rule.weight_decay))
    target = equilibrium_angle(rule.at(rule.lr / 4, rule.weight_decay))
    for end in (700, 1_000):
        window = slice(end - 50, end)
        measured = np.sqrt((walk.angle[window] ** 2).mean()) / target
        assert measured == pytest.approx(curve[window].mean(), rel=0.04)


@pytest.mark.parametrize("name", RULES)
def test_the_a_priori_curve_stays_at_one_when_rescaled(name: str) -> None:
    rule = RULES[name]
    rates = np.repeat([rule.lr, rule.lr / 10], 100)
    scale = np.repeat([1.0, rescale_factor(rule, 10)], 100)
    decay = np.full(200, rule.weight_decay)
    assert np.allclose(relaxation_ratio(rule, np.arange(200), rates, decay, scale), 1)


def test_the_a_priori_curve_of_the_published_stages() -> None:
    """ImageNet: ÷10 at epochs 30, 60, 80 of 90, Δ/Δ* at the stages' starts and ends."""
    per_epoch = 5_005
    steps = np.arange(0, 90 * per_epoch, 5)
    rates = 0.1 * 0.1 ** np.searchsorted([30, 60, 80], steps / per_epoch, side="right")
    ratio = relaxation_ratio(SGDRule(0.1, 1e-4, 0.9), steps, rates, np.full(len(steps), 1e-4))
    starts = np.flatnonzero(np.diff(rates)) + 1
    assert ratio[starts] == pytest.approx([0.316, 0.313, 0.118], abs=2e-3)
    assert ratio[[*(starts[1:] - 1), -1]] == pytest.approx([0.989, 0.373, 0.119], abs=2e-3)


@pytest.mark.parametrize("per_relaxation_time", [-0.5, 0.5])
def test_a_driving_moment_that_drifts_moves_the_ratio(per_relaxation_time: float) -> None:
    rule = SGDRule(0.01, 0.01, 0.9)
    drift, steps = per_relaxation_time / relaxation_time(rule), np.arange(6_000)
    settings = (steps, np.full(6_000, rule.lr), np.full(6_000, rule.weight_decay))
    ratio = relaxation_ratio(rule, *settings, moment=np.exp(drift * steps))
    expected = drifting_equilibrium_angle(rule, drift) / equilibrium_angle(rule)
    assert ratio[-1] == pytest.approx(expected, rel=2e-3)  # held over one step of 250
    assert ratio[0] == 1
    steady = relaxation_ratio(rule, *settings, initial=1.5, moment=np.ones(6_000))
    assert np.array_equal(steady, relaxation_ratio(rule, *settings, initial=1.5))


def test_a_driving_moment_below_zero_has_no_angle() -> None:
    ones = np.ones(3)
    ratio = relaxation_ratio(RULES["sgd"], np.arange(3), ones, ones * 0.01, moment=[1, -0.1, 1])
    assert np.isnan(ratio).tolist() == [False, True, False]
