from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_hooks.analysis.claims.relaxation_fit import fit_rate, fitted_span, median_rate
from smd_hooks.theory import SGDRule, equilibrium_norm, relaxation_time
from tests.analysis.claims.constructed import walk

SLOW = {0.0: SGDRule(0.2, 2.5e-3, 0.0), 0.9: SGDRule(0.2, 2.5e-4, 0.9)}  # τ = 500 steps each


def fitted(told: SGDRule, rule: SGDRule, start: float, every: int = 1) -> np.ndarray:
    """Rates of each of a walk's vectors times τ of ``rule``, by which it walked."""
    samples = walk(rule, 1_600, start)
    steps = np.unique(samples["step"])
    norm, gradient, along = (
        samples[name].reshape(len(steps), -1)
        for name in ("weight_norm", "gradient_norm", "gradient_momentum_dot")
    )
    moment = (gradient**2 + 2 * rule.momentum * along) * norm**2
    kept = slice(fitted_span(rule, steps).start, fitted_span(rule, steps).stop, every)
    rates = [
        fit_rate(told, steps[kept], r[kept], h[kept]) for r, h in zip(norm.T, moment.T, strict=True)
    ]
    return np.array(rates) * relaxation_time(rule)


@pytest.mark.parametrize("momentum", SLOW)
@pytest.mark.parametrize("start", [2.0, 4.0])
def test_walks_relax_at_the_rate_that_is_fitted(momentum: float, start: float) -> None:
    rates = fitted(SLOW[momentum], SLOW[momentum], start)
    assert rates == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("momentum", SLOW)
def test_the_fit_is_not_told_the_decay(momentum: float) -> None:
    """What it is told of decay cancels: it finds the walk's own rate."""
    rule = SLOW[momentum]
    told = SGDRule(rule.lr, 3 * rule.weight_decay, rule.momentum)
    assert fitted(told, rule, 3.0) == pytest.approx(1.0, abs=0.02)
    # control: a wrong learning rate is no such thing
    assert not 0.9 < np.median(fitted(SGDRule(0.4, rule.weight_decay, momentum), rule, 2.0)) < 1.1


@pytest.mark.parametrize("momentum", SLOW)
def test_sampling_now_and_then_costs_little(momentum: float) -> None:
    rates = fitted(SLOW[momentum], SLOW[momentum], 3.0, every=5)
    assert np.median(rates) == pytest.approx(1.0, abs=0.05)


def test_the_span_begins_where_the_momentum_has_filled_up() -> None:
    steps = np.arange(2_000)
    assert fitted_span(SLOW[0.9], steps) == slice(30, 1_500)
    assert fitted_span(SLOW[0.0], steps) == slice(0, 1_500)
    assert fitted_span(SLOW[0.9], steps[::10]) == slice(3, 150)


@settings(max_examples=30, deadline=None)
@given(
    rate=st.floats(0.2, 5.0),
    level=st.floats(0.1, 10.0),
    start=st.floats(1.5, 100.0),
)
def test_an_exponential_gives_its_own_rate(rate: float, level: float, start: float) -> None:
    """x' = −k·x + s·h, solved exactly, with any k, h and x₀ whatever the decay is told to be."""
    rule = SLOW[0.9]
    k, steps = rate / relaxation_time(rule), np.arange(1_500)
    added = equilibrium_norm(rule, 1.0) ** 4 / relaxation_time(rule) * level
    x = added / k * (1 + (start - 1) * np.exp(-k * steps))
    found = fit_rate(rule, steps, x**0.25, np.full(len(steps), level))
    assert found == pytest.approx(k, rel=1e-3)


def test_too_few_samples_have_no_rate() -> None:
    assert math.isnan(fit_rate(SLOW[0.0], np.array([3]), np.array([1.0]), np.array([1.0])))


def test_the_error_of_a_median() -> None:
    random = np.random.default_rng(0)
    medians = [np.median(random.normal(5.0, 1.0, 20)) for _ in range(4_000)]
    errors = [median_rate(random.normal(5.0, 1.0, 20), 5.0).error for _ in range(400)]
    assert np.mean(errors) == pytest.approx(np.std(medians), rel=0.05)
    assert math.isnan(median_rate(np.array([2.0]), 1.0).error)
