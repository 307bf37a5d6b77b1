"""Reference values and the identities that tie them together."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_hooks.theory import (
    AdamRule,
    LionRule,
    NoPrediction,
    RotationalRule,
    SGDRule,
    UpdateRule,
    decay_factor,
    decay_rate,
    direction_memory,
    drifting_equilibrium_angle,
    equilibrium_angle,
    equilibrium_norm,
    relaxation_time,
    relaxation_times,
    rescale_factor,
    step_exponent,
)

rates = st.floats(1e-4, 0.5)
decays = st.floats(1e-6, 1e-2)
momenta = st.floats(0.0, 0.98)
sgd = st.builds(SGDRule, rates, decays, momenta, st.just(0.0), st.booleans(), st.booleans())
adamw = st.builds(AdamRule, rates, decays, momenta)
signs = st.builds(LionRule, rates, decays, momenta, momenta, st.floats(0.1, 10))
rules = sgd | adamw | signs
L2 = AdamRule(1e-3, 0.1, decoupled=False)


@pytest.mark.parametrize(
    ("rule", "angle", "tau"),
    [
        (SGDRule(0.2, 1e-4), 6.325e-3, 12_500),
        (SGDRule(0.2, 1e-4, 0.9), 4.588e-3, 1_250),
        (SGDRule(0.1, 1e-4, 0.9), 3.244e-3, 2_500),
        (SGDRule(0.02, 1e-4, 0.9), 1.451e-3, 12_500),
        (SGDRule(0.02, 0.01, 0.9), 1.451e-2, 125),
        (AdamRule(2e-3, 0.1), 4.588e-3, 2_500),
        (LionRule(2e-3, 0.1), 2.951e-3, 2_500),
    ],
)
def test_reference_values(rule: UpdateRule, angle: float, tau: float) -> None:
    assert equilibrium_angle(rule) == pytest.approx(angle, rel=2e-4)
    assert relaxation_time(rule) == pytest.approx(tau)


def test_reference_norms_of_gradients_that_do_not_shrink() -> None:
    """RMS of the weight under unit white gradients: L is then C·r², and r* is in both."""
    adamw = AdamRule(2e-3, 0.1)
    # √(η/2λ) to first order; the next is ηλ·β₁/(1−β₁²)
    next_order = 2e-4 * 0.9 / (1 - 0.9**2)
    assert equilibrium_norm(adamw, elements=1) == pytest.approx(0.1 * (1 - next_order), rel=1e-4)
    rule = SGDRule(0.02, 0.01, 0.9)
    r = math.sqrt(rule.lr / (2 * rule.weight_decay * (1 - rule.momentum)))
    assert r == pytest.approx(3.162, rel=2e-4)
    assert equilibrium_norm(rule, moment=r**2) == pytest.approx(r, rel=2e-4)


def test_momentum_is_not_left_out() -> None:
    """√(2ηλ), which is right for plain SGD only, is 4.36 times AdamW's angle."""
    assert math.sqrt(2 * 2e-4) / equilibrium_angle(AdamRule(2e-3, 0.1)) == pytest.approx(
        4.36, abs=5e-3
    )


@pytest.mark.parametrize(
    ("beta1", "beta2", "variance", "excess"),
    [(0.9, 0.99, 0.01 + 0.81 * 0.01 / 1.99, 0.0075), (0.9, 0.9, 0.1 / 1.9, 0.048)],
)
def test_linearised_signs_are_a_little_too_fast(
    beta1: float, beta2: float, variance: float, excess: float
) -> None:
    """√(πηλ·s²) takes sign() for linear; 2.97e-3 at Lion's reference setting."""
    linear = math.sqrt(math.pi * 2e-4 * variance)
    exact = equilibrium_angle(LionRule(2e-3, 0.1, beta1, beta2))
    assert linear / exact - 1 == pytest.approx(excess, abs=5e-4)
    if beta2 == 0.99:
        assert linear == pytest.approx(2.97e-3, abs=5e-6)


@given(rates, decays, momenta)
def test_heavy_balls_angle_is_the_exact_cosine_form(lr: float, decay: float, a: float) -> None:
    cosine = 1 - lr * decay / (1 + a)
    assert math.cos(equilibrium_angle(SGDRule(lr, decay, a))) == pytest.approx(cosine, abs=1e-15)


@given(rates, decays, momenta)
def test_decoupled_angles_are_the_exact_cosine_form(lr: float, decay: float, a: float) -> None:
    q = 1 - lr * decay
    cosine = (q + a) / (1 + q * a)
    for rule in (SGDRule(lr, decay, a, decoupled=True), AdamRule(lr, decay, a)):
        assert math.cos(equilibrium_angle(rule)) == pytest.approx(cosine, abs=1e-15)


@given(rules)
def test_angles_are_twice_the_decay_rate_over_the_memory(rule: UpdateRule) -> None:
    first_order = math.sqrt(2 * decay_rate(rule) / direction_memory(rule))
    tolerance = decay_rate(rule) * (1 + direction_memory(rule))
    assert equilibrium_angle(rule) == pytest.approx(first_order, rel=max(tolerance, 1e-9))


@given(rules, st.floats(0.1, 10))
def test_angle_and_time_do_not_change_with_the_unit_of_the_weight(
    rule: UpdateRule, c: float
) -> None:
    """(w, η, λ) → (c·w, c²η, λ/c²), or cη and λ/c where steps are normalized."""
    factor = c ** (1 + step_exponent(rule))
    scaled = rule.at(factor * rule.lr, rule.weight_decay / factor)
    assert equilibrium_angle(scaled) == pytest.approx(equilibrium_angle(rule), rel=1e-9)
    assert relaxation_time(scaled) == pytest.approx(relaxation_time(rule), rel=1e-9)
    assert equilibrium_norm(scaled, 3.0) == pytest.approx(c * equilibrium_norm(rule, 3.0))


def test_control_the_other_familys_change_of_units_is_none() -> None:
    sgd_rule, adam_rule = SGDRule(0.1, 0.01, 0.9), AdamRule(0.1, 0.01)
    for rule, factor in ((sgd_rule, 3.0), (adam_rule, 9.0)):
        scaled = rule.at(factor * rule.lr, rule.weight_decay / factor)
        assert equilibrium_norm(scaled, 3.0) != pytest.approx(
            3 * equilibrium_norm(rule, 3.0), rel=0.1
        )


@given(rules, st.floats(1.1, 100))
def test_rescaling_puts_the_weight_on_its_new_norm(rule: UpdateRule, k: float) -> None:
    new = rule.at(rule.lr / k, rule.weight_decay)
    wanted = equilibrium_norm(new, 1.0) / equilibrium_norm(rule, 1.0)
    # r* has corrections of the order of the decay rate times the momentum's memory
    memory = direction_memory(rule) if not isinstance(rule, LionRule) else 1.0
    assert rescale_factor(rule, k) == pytest.approx(
        wanted, rel=decay_rate(rule) * (1 + memory) + 1e-9
    )


@given(rules, st.floats(0.01, 100), st.floats(0.01, 100))
def test_rescalings_compose(rule: UpdateRule, k: float, m: float) -> None:
    assert rescale_factor(rule, k) * rescale_factor(rule, m) == pytest.approx(
        rescale_factor(rule, k * m)
    )


@given(rates, decays, st.floats(0.1, 0.98), st.floats(0.0, 0.9))
def test_dampening_acts_as_a_smaller_learning_rate(
    lr: float, decay: float, momentum: float, dampening: float
) -> None:
    damped = SGDRule(lr, decay, momentum, dampening)
    undamped = SGDRule(lr * (1 - dampening), decay, momentum)
    for function in (equilibrium_angle, relaxation_time, lambda r: equilibrium_norm(r, 2.0)):
        assert function(damped) == pytest.approx(function(undamped), rel=1e-12)


@given(rates, decays, st.floats(0.1, 0.98), st.floats(0.0, 0.9))
def test_dampening_leaves_decoupled_decay_alone(
    lr: float, decay: float, momentum: float, dampening: float
) -> None:
    damped = SGDRule(lr, decay, momentum, dampening, decoupled=True)
    undamped = SGDRule(lr, decay, momentum, decoupled=True)
    assert equilibrium_angle(damped) == equilibrium_angle(undamped)
    assert relaxation_time(damped) == relaxation_time(undamped)
    assert equilibrium_norm(damped, 1.0) == pytest.approx(
        math.sqrt(1 - dampening) * equilibrium_norm(undamped, 1.0)
    )


@given(rates, decays, momenta, momenta, st.floats(0.1, 10))
def test_the_size_of_a_sign_step_sets_the_norm_and_not_the_angle(
    lr: float, decay: float, beta1: float, beta2: float, scale: float
) -> None:
    plain, scaled = LionRule(lr, decay, beta1, beta2), LionRule(lr, decay, beta1, beta2, scale)
    assert equilibrium_angle(scaled) == equilibrium_angle(plain)
    assert equilibrium_norm(scaled, elements=9) == pytest.approx(
        scale * equilibrium_norm(plain, elements=9)
    )


@given(rules, st.floats(-0.9, 3.0))
def test_a_drift_acts_through_the_relaxation_time(rule: UpdateRule, share: float) -> None:
    """Against Δ² = (2s + μ/(1 + p))/D, written out."""
    drift = share / relaxation_time(rule)
    s, p = decay_rate(rule), step_exponent(rule)
    expected = math.sqrt((2 * s + drift / (1 + p)) / direction_memory(rule))
    tolerance = s * (1 + direction_memory(rule)) + 1e-9
    assert drifting_equilibrium_angle(rule, drift) == pytest.approx(expected, rel=tolerance)
    assert drifting_equilibrium_angle(rule, 0.0) == equilibrium_angle(rule)


def test_nesterov_turns_sixteen_percent_faster() -> None:
    plain, nesterov = (
        equilibrium_angle(SGDRule(0.1, 1e-4, 0.9, nesterov=n)) for n in (False, True)
    )
    assert nesterov / plain == pytest.approx(1.16, abs=0.005)


@pytest.mark.parametrize(
    "rule",
    [
        SGDRule(0.1, 5e-3, 0.9),
        SGDRule(0.1, 5e-3, 0.9, nesterov=True),
        SGDRule(0.1, 5e-3, 0.9, decoupled=True),
        SGDRule(0.2, 5e-3, 0.8, 0.5),
    ],
)
def test_the_decay_factor_is_that_of_a_weight_without_gradients(rule: SGDRule) -> None:
    w, v, norms = 1.0, 0.0, []
    for _ in range(400):
        gradient = 0.0 if rule.decoupled else rule.weight_decay * w
        v = rule.momentum * v + (1 - rule.dampening) * gradient
        step = gradient + rule.momentum * v if rule.nesterov else v
        w = w * (1 - rule.lr * rule.weight_decay if rule.decoupled else 1) - rule.lr * step
        norms.append(w)
    assert decay_factor(rule) == pytest.approx(norms[-1] / norms[-2], rel=1e-9)
    assert decay_factor(rule) == pytest.approx(
        1 - decay_rate(rule), abs=1e-2 * decay_rate(rule) * 9
    )


def test_reference_values_of_the_decay_factor() -> None:
    """Exponential-lr growth per epoch, and the exact τ = −1/(4 ln a) where τ is 20 and 50."""
    assert decay_factor(SGDRule(0.1, 5e-4, 0.9)) ** (-2 * 391) == pytest.approx(1.4812, abs=5e-5)
    for formula, exact in ((20, 17.2), (50, 47.5)):
        rule = SGDRule(0.1, 0.1 / (4 * formula * 0.1), 0.9)
        assert relaxation_time(rule) == pytest.approx(formula)
        assert -1 / (4 * math.log(decay_factor(rule))) == pytest.approx(exact, abs=0.05)


def test_beyond_the_oscillation_limit_there_is_no_decay_factor() -> None:
    limit = (1 - math.sqrt(0.9)) ** 2
    assert limit == pytest.approx(2.63e-3, abs=5e-6)
    assert decay_factor(SGDRule(1.0, 0.999 * limit, 0.9)) < 1
    with pytest.raises(NoPrediction, match="oscillate"):
        decay_factor(SGDRule(1.0, 1.001 * limit, 0.9))


FUNCTIONS: list[Callable[[UpdateRule], float]] = [
    equilibrium_angle,
    relaxation_time,
    decay_factor,
    lambda rule: equilibrium_norm(rule, 1.0),
    lambda rule: drifting_equilibrium_angle(rule, 1e-6),
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    "rule",
    [
        SGDRule(0.1, 0.0),
        SGDRule(0.0, 0.1),
        SGDRule(4.0, 1.0, 0.9),
        SGDRule(1.4, 1.0, 0.9, nesterov=True),
        SGDRule(2.0, 1.0, 0.9, decoupled=True),
        AdamRule(1e-3, 0.0),
        AdamRule(2.0, 1.0),
        LionRule(0.0, 1.0),
    ],
)
def test_without_decay_or_rate_or_when_decay_diverges_there_is_no_equilibrium(
    function: Callable[[UpdateRule], float], rule: UpdateRule
) -> None:
    with pytest.raises(NoPrediction, match="not applicable"):
        function(rule)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_adam_without_decay_is_not_told_how_l2_would_act(
    function: Callable[[UpdateRule], float],
) -> None:
    with pytest.raises(NoPrediction, match="no weight decay, so no equilibrium"):
        function(AdamRule(1e-3, 0.0, decoupled=False))


@pytest.mark.parametrize(
    "function",
    [*FUNCTIONS[:3], FUNCTIONS[4], step_exponent, lambda rule: rescale_factor(rule, 10.0)],
)
def test_adam_with_l2_depends_on_the_gradient(function: Callable[[UpdateRule], float]) -> None:
    with pytest.raises(NoPrediction, match="depends on the gradient and differs between layers"):
        function(L2)


def test_adam_with_l2_given_its_gradient() -> None:
    """Twice the gradient at every coordinate: 2^⅓ times the norm, 2^−⅓ times the angle."""
    norm, angle = equilibrium_norm(L2, 5.0), equilibrium_angle(L2, 5.0, elements=100)
    assert norm == pytest.approx((1e-3 / 0.2 * 5.0) ** (1 / 3))
    assert angle == pytest.approx(1e-3 * math.sqrt(100 * 0.1 / 1.9) / norm)
    assert equilibrium_norm(L2, 10.0) == pytest.approx(2 ** (1 / 3) * norm)


def test_what_the_norm_needs_is_asked_for() -> None:
    with pytest.raises(NoPrediction, match="not positive"):
        equilibrium_norm(SGDRule(0.1, 0.1), -1.0)
    with pytest.raises(NoPrediction, match="second moment"):
        equilibrium_norm(SGDRule(0.1, 0.1), elements=100)
    with pytest.raises(NoPrediction, match="second moment"):
        equilibrium_norm(AdamRule(0.1, 0.1))
    with pytest.raises(ValueError, match="k must be positive"):
        rescale_factor(SGDRule(0.1, 0.1), 0.0)


@pytest.mark.parametrize(
    "rule",
    [
        SGDRule(0.1, 0.01, 0.9),
        SGDRule(0.1, 0.01, 0.9, dampening=0.5, decoupled=True),
        AdamRule(0.1, 0.01),
        LionRule(0.1, 0.01),
    ],
    ids=repr,
)
def test_relaxation_times_along_a_schedule_are_those_of_each_setting(rule: UpdateRule) -> None:
    lr, decay = np.array([[1e-5, 0.1], [0.3, 0.02]]), np.array([[0.1, 1e-3], [0.01, 0.5]])
    times = relaxation_times(rule, lr, decay)
    each = [relaxation_time(rule.at(*pair)) for pair in zip(lr.flat, decay.flat, strict=True)]
    assert times.ravel() == pytest.approx(each, rel=1e-12)
    for wrong in ((lr * 0, decay), (lr, decay * 0), (lr, decay * 1e4)):
        with pytest.raises(NoPrediction):
            relaxation_times(rule, *wrong)
    one_of_all = lr.copy()
    one_of_all[1, 0] = np.nan
    with pytest.raises(NoPrediction):
        relaxation_times(rule, one_of_all, decay)


def test_a_rotational_rule_has_no_relaxation_times() -> None:
    with pytest.raises(NoPrediction, match="nothing that relaxes"):
        relaxation_times(RotationalRule(0.1, 0.1, 0.5, 0.1), [0.1], [0.1])
