from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_hooks.theory.representation import predicted_representation_change, snr_step_factor

fan_ins = st.integers(1, 10_000)
batch_sizes = st.integers(1, 10_000)
snrs = st.floats(0, 1e4)


def simulated_representation_change(fan_in: int, batch_size: int, snr: float, draws: int) -> float:
    """RRC/η of one neuron whose gradients are its inputs, by drawing everything."""
    rng = np.random.default_rng(0)
    moved = at_rest = 0.0
    for _ in range(draws):
        mean = rng.normal(size=fan_in)
        mean *= math.sqrt(snr) / np.linalg.norm(mean)
        x = mean + rng.normal(size=(batch_size, fan_in)) / math.sqrt(fan_in)
        w = rng.normal(size=fan_in)
        step = x.mean(0)
        step *= np.linalg.norm(w) / np.linalg.norm(step)
        moved += np.square(x @ step).mean()
        at_rest += np.square(x @ w).mean()
    return math.sqrt(moved / at_rest)


@pytest.mark.parametrize("snr", [0.0, 1e-3, 1e-2, 0.1])
@pytest.mark.parametrize(("fan_in", "batch_size"), [(64, 16), (256, 64), (64, 480)])
def test_the_relation_is_what_a_simulated_neuron_does(
    fan_in: int, batch_size: int, snr: float
) -> None:
    predicted = predicted_representation_change(fan_in, batch_size, snr)
    simulated = simulated_representation_change(fan_in, batch_size, snr, draws=600)
    assert simulated == pytest.approx(predicted, rel=0.04)


def test_the_simulation_tells_the_limit_of_many_inputs_from_the_full_relation() -> None:
    """Control: at few inputs a large batch moves its outputs mostly by chance."""
    simulated = simulated_representation_change(64, 480, 0.0, draws=300)
    assert simulated > 2 * math.sqrt(64 / 480)


@pytest.mark.parametrize(
    ("snr", "full", "limit"),
    [
        (1e-4, 0.986, 0.977),
        (1 / 480, 0.787, 0.708),
        (1e-2, 0.505, 0.417),
        (0.1, 0.190, 0.150),
        (1.0, 0.082, 0.065),
        (10.0, 0.061, 0.048),
    ],
)
def test_reference_values_of_the_step_factor(snr: float, full: float, limit: float) -> None:
    # .0645 was rounded up to .065
    assert snr_step_factor(snr, 480, 768) == pytest.approx(full, abs=5.3e-4)
    assert snr_step_factor(snr, 480) == pytest.approx(limit, abs=5.3e-4)


@given(snrs, batch_sizes)
def test_the_factor_lies_between_one_and_a_batch_that_agrees(snr: float, batch_size: int) -> None:
    assert 1 / math.sqrt(batch_size) <= snr_step_factor(snr, batch_size) * (1 + 1e-12)
    assert snr_step_factor(snr, batch_size) <= 1


@given(snrs, st.integers(1, 1000))
def test_with_many_inputs_the_full_factor_is_the_limit(snr: float, batch_size: int) -> None:
    full = snr_step_factor(snr, batch_size, fan_in=10**9)
    assert full == pytest.approx(snr_step_factor(snr, batch_size), rel=1e-2)


@given(fan_ins, batch_sizes, snrs)
def test_the_factor_undoes_what_the_signal_does(fan_in: int, batch_size: int, snr: float) -> None:
    change = predicted_representation_change(fan_in, batch_size, snr)
    corrected = snr_step_factor(snr, batch_size, fan_in) * change
    assert corrected == pytest.approx(predicted_representation_change(fan_in, batch_size, 0.0))


@given(fan_ins)
def test_a_single_example_always_moves_its_own_output(fan_in: int) -> None:
    assert predicted_representation_change(fan_in, 1, 0.0) == pytest.approx(math.sqrt(fan_in))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10, 0.1), "fan_in must be 1 or more"),
        ((10, 0, 0.1), "batch_size must be 1 or more"),
        ((10, 10, -0.1), "snr must be 0 or more"),
        ((10, 10, math.nan), "snr must be 0 or more"),
    ],
)
def test_senseless_arguments_are_refused(
    arguments: tuple[float, float, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predicted_representation_change(*arguments)
