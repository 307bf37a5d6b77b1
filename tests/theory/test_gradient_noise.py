from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_hooks.theory.gradient_noise import NoiseAverage, two_batch_estimate


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(1, 1000), st.integers(1, 1000))
def test_expected_squares_give_back_signal_and_noise(
    signal: float, noise: float, small: int, more: int
) -> None:
    large = small + more
    estimate = two_batch_estimate(signal + noise / small, signal + noise / large, small, large)
    scale = (signal + noise) * (large / more) * 1e-14
    assert estimate == pytest.approx((signal, noise), abs=scale * large)


def synthetic_estimates(draws: int, micro_batches: int, small: int) -> np.ndarray:
    """Signals and noises, shape (2, draws), of examples with φ = .0100 in 500 dimensions."""
    rng = np.random.default_rng(0)
    size, snr = 500, 0.01
    mean = rng.normal(size=size)
    mean *= math.sqrt(snr) / np.linalg.norm(mean)
    # a micro-batch's mean of Gaussian examples, drawn directly
    noise = rng.normal(size=(draws, micro_batches, size)) / math.sqrt(size * small)
    gradients = mean + noise
    return np.array(
        two_batch_estimate(
            np.square(gradients).sum(-1).mean(1),
            np.square(gradients.mean(1)).sum(-1),
            small,
            small * micro_batches,
        )
    )


def test_a_known_ratio_is_found() -> None:
    signal, noise = synthetic_estimates(draws=4000, micro_batches=4, small=8)
    average = NoiseAverage(window=4000)
    for estimate in zip(signal, noise, strict=True):
        average.add(*estimate)
    assert average.signal_to_noise == pytest.approx(0.01, rel=0.03)
    assert average.critical_batch_size == pytest.approx(100, rel=0.03)


def test_a_mean_of_ratios_is_biased() -> None:
    """Control: few dimensions and a small batch make single ratios run away."""
    rng = np.random.default_rng(0)
    gradients = 1 + rng.normal(size=(20_000, 4, 2))  # ‖ḡ‖² = 2, noise 2, b = 1
    signal, noise = two_batch_estimate(
        np.square(gradients).sum(-1).mean(1), np.square(gradients.mean(1)).sum(-1), 1, 4
    )
    assert signal.mean() / noise.mean() == pytest.approx(1, rel=0.03)
    assert (signal / noise).mean() > 1.3


def test_the_average_forgets_and_says_nothing_where_there_is_nothing_to_tell() -> None:
    average = NoiseAverage(window=2)
    assert math.isnan(average.signal_to_noise)
    average.add(5.0, 1.0)
    average.add(1.0, 2.0)
    assert average.signal_to_noise == 2.0
    average.add(1.0, 6.0)
    assert average.signal_to_noise == 0.25
    assert average.critical_batch_size == 4.0
    average.add(-2.0, 1.0)
    assert math.isnan(average.signal_to_noise)
    assert math.isnan(average.critical_batch_size)
