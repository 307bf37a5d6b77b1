from __future__ import annotations

import math

import numpy as np
import pytest

from smd_hooks.theory import (
    AdamRule,
    LionRule,
    NoPrediction,
    SGDRule,
    check_assumptions,
    drifting_equilibrium_angle,
    equilibrium_angle,
    relaxation_time,
)

RULE = SGDRule(0.1, 1e-3, 0.9)
STEPS = np.arange(1_000)


def noise(scatter: float) -> np.ndarray:
    return np.random.default_rng(0).normal(1.0, scatter, len(STEPS))


def test_a_quiet_weight_meets_them_all() -> None:
    checked = check_assumptions(RULE, STEPS, 7 * noise(0.1))
    assert checked.findings == ()
    assert checked.scatter == pytest.approx(0.1, rel=0.1)
    assert checked.smallest == pytest.approx(1 - 0.1 * 3.2, abs=0.1)
    assert abs(checked.drift_ratio) < 0.01
    assert checked.oscillation == pytest.approx(1e-4 / 2.63e-3, rel=2e-3)
    assert math.isnan(checked.memory)


@pytest.mark.parametrize("share", [-0.4, 0.5])
def test_a_drift_is_measured_and_said_with_its_angle(share: float) -> None:
    tau = relaxation_time(RULE)
    moment = np.exp(share / tau * STEPS)
    checked = check_assumptions(RULE, STEPS, moment)
    assert checked.drift == pytest.approx(share / tau, rel=1e-9)
    assert checked.drift_ratio == pytest.approx(share, rel=1e-9)
    # μ(1−α)/(4ηλ), as the spec has it for heavy ball
    assert checked.drift_ratio == pytest.approx(checked.drift * 0.1 / 4e-4)
    ratio = drifting_equilibrium_angle(RULE, checked.drift) / equilibrium_angle(RULE)
    (finding,) = checked.findings
    assert f"{ratio:.2f} of equilibrium" in finding


def test_a_moment_that_vanishes_too_fast_is_said_without_an_angle() -> None:
    checked = check_assumptions(RULE, STEPS, np.exp(-2 / relaxation_time(RULE) * STEPS))
    assert any("faster than the norm follows" in finding for finding in checked.findings)


def test_a_drift_within_the_noise_is_no_finding() -> None:
    """Over a stretch much shorter than τ, noise alone looks like a large μτ."""
    checked = check_assumptions(RULE, STEPS[:40], noise(0.3)[:40])
    assert abs(checked.drift_ratio) > 0.2
    assert checked.findings == ()


def test_scatter_and_negative_moments_are_findings() -> None:
    checked = check_assumptions(RULE, STEPS, noise(1.5))
    assert checked.scatter > 1 > 0 > checked.smallest
    assert [f for f in checked.findings if f"scatters by {checked.scatter:.1f}" in f]
    assert [f for f in checked.findings if "positive lower bound" in f]
    opposed = check_assumptions(RULE, STEPS, -noise(0.1))
    assert math.isnan(opposed.scatter)
    assert opposed.findings[0].startswith("the driving moment is not positive on average")


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (SGDRule(1.0, 3e-3, 0.9), "oscillates"),
        (AdamRule(0.1, 0.05, 0.9, 0.999), "beta2"),
        (LionRule(0.1, 0.05, 0.9, 0.99), "beta2"),
    ],
)
def test_settings_outside_the_theory_are_findings(rule: SGDRule, word: str) -> None:
    (finding,) = check_assumptions(rule, STEPS, noise(0.1)).findings
    assert word in finding
    milder = rule.at(rule.lr, rule.weight_decay / 100)
    assert check_assumptions(milder, STEPS[:40], noise(0.1)[:40]).findings == ()


def test_what_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match="8 samples"):
        check_assumptions(RULE, STEPS[:5], noise(0.1)[:5])
    with pytest.raises(NoPrediction):
        check_assumptions(RULE.at(0.1, 0.0), STEPS, noise(0.1))
