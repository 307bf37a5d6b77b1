"""Reference values and the identities that tie them together."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_hooks.theory import (
    NoPrediction,
    UpdateRule,
    equilibrium_angle,
    equilibrium_norm,
    relaxation_time,
    rescale_factor,
)

rates = st.floats(1e-4, 1.0)
decays = st.floats(1e-6, 1e-2)
momenta = st.floats(0.0, 0.98)


@pytest.mark.parametrize(
    ("lr", "decay", "momentum", "angle", "tau"),
    [
        (0.2, 1e-4, 0.0, 6.325e-3, 12_500),
        (0.2, 1e-4, 0.9, 4.588e-3, 1_250),
        (0.1, 1e-4, 0.9, 3.244e-3, 2_500),
        (0.02, 1e-4, 0.9, 1.451e-3, 12_500),
        (0.02, 0.01, 0.9, 1.451e-2, 125),
    ],
)
def test_reference_values(
    lr: float, decay: float, momentum: float, angle: float, tau: float
) -> None:
    rule = UpdateRule(lr, decay, momentum)
    assert equilibrium_angle(rule) == pytest.approx(angle, rel=2e-4)
    assert relaxation_time(rule) == pytest.approx(tau)


@given(rates, decays, momenta)
def test_the_angle_is_the_exact_cosine_form(lr: float, decay: float, momentum: float) -> None:
    cosine = 1 - lr * decay / (1 + momentum)
    measured = equilibrium_angle(UpdateRule(lr, decay, momentum))
    assert math.cos(measured) == pytest.approx(cosine, abs=1e-15)


@given(rates, decays, momenta, st.floats(0.1, 10))
def test_angle_and_norm_under_a_change_of_units(
    lr: float, decay: float, momentum: float, c: float
) -> None:
    """(w, η, λ) → (c·w, c²η, λ/c²) leaves a scale-invariant trajectory as it is."""
    rule, scaled = UpdateRule(lr, decay, momentum), UpdateRule(c * c * lr, decay / c**2, momentum)
    assert equilibrium_angle(scaled) == pytest.approx(equilibrium_angle(rule), rel=1e-9)
    assert relaxation_time(scaled) == pytest.approx(relaxation_time(rule), rel=1e-9)
    assert equilibrium_norm(scaled, 3.0) == pytest.approx(c * equilibrium_norm(rule, 3.0))


@given(rates, decays, momenta, st.floats(1.1, 100))
def test_rescaling_puts_the_weight_on_its_new_norm(
    lr: float, decay: float, momentum: float, k: float
) -> None:
    old, new = UpdateRule(lr, decay, momentum), UpdateRule(lr / k, decay, momentum)
    wanted = equilibrium_norm(new, 1.0) / equilibrium_norm(old, 1.0)
    # r* has a factor (2 − λη/(1+α))^(−1/4), one up to ηλ/8
    assert rescale_factor(old, k) == pytest.approx(wanted, rel=lr * decay)


@given(rates, decays, st.floats(0.1, 0.98), st.floats(0.0, 0.9))
def test_dampening_acts_as_a_smaller_learning_rate(
    lr: float, decay: float, momentum: float, dampening: float
) -> None:
    damped = UpdateRule(lr, decay, momentum, dampening)
    assert equilibrium_angle(damped) == equilibrium_angle(
        UpdateRule(lr * (1 - dampening), decay, momentum)
    )


def test_nesterov_turns_sixteen_percent_faster() -> None:
    plain, nesterov = (
        equilibrium_angle(UpdateRule(0.1, 1e-4, 0.9, nesterov=n)) for n in (False, True)
    )
    assert nesterov / plain == pytest.approx(1.16, abs=0.005)


@pytest.mark.parametrize(
    "rule", [UpdateRule(0.1, 0.0), UpdateRule(0.0, 0.1), UpdateRule(4.0, 1.0, 0.9)]
)
def test_without_decay_or_rate_or_when_decay_diverges_there_is_no_equilibrium(
    rule: UpdateRule,
) -> None:
    for function in (equilibrium_angle, relaxation_time, lambda r: equilibrium_norm(r, 1.0)):
        with pytest.raises(NoPrediction, match="not applicable"):
            function(rule)


def test_a_moment_that_is_not_positive_has_no_norm() -> None:
    with pytest.raises(NoPrediction, match="not positive"):
        equilibrium_norm(UpdateRule(0.1, 0.1), -1.0)
    with pytest.raises(ValueError, match="k must be positive"):
        rescale_factor(UpdateRule(0.1, 0.1), 0.0)
