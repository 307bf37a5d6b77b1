"""The set angle of rotational optimizers: constants, schedules, early steps; and its laws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smd_hooks.theory import (
    AdamRule,
    LionRule,
    NoPrediction,
    SGDRule,
    UpdateRule,
    equilibrium_angle,
    inverse_bias_factor,
    is_rotational,
    lion_ar_constant,
    peak_lr_of,
    rotation_constant,
    sign_rotation_constant,
    step_angle,
)

ROOT = math.sqrt(2e-3 * 0.1)  # of lr · weight decay in the reference values
numbers = st.floats(1e-4, 1.0)
betas = st.floats(0.0, 0.999)
schedules = st.sampled_from(["linear", "sqrt"])


# ------------------------------------------------------------------------------- constants


@pytest.mark.parametrize(
    ("beta", "nesterov", "matching", "angle"),
    [
        (0.9, False, "adamw", 0.004588),
        (0.9, True, "adamw", 0.004588),
        (0.9, False, "net", 0.005751),
        (0.9, True, "net", 0.006662),
        (0.98, False, "adamw", 0.002010),
        (0.98, False, "net", 0.002519),
        (0.98, True, "net", 0.002615),
    ],
)
def test_reference_angles_of_lion_ar(
    beta: float, nesterov: bool, matching: str, angle: float
) -> None:
    assert lion_ar_constant(beta, nesterov, matching) * ROOT == pytest.approx(angle, abs=6e-7)


def test_the_two_matchings_differ_by_a_known_factor() -> None:
    for beta in (0.5, 0.9, 0.98):
        ratio = lion_ar_constant(beta, matching="net") / lion_ar_constant(beta)
        assert ratio == pytest.approx(math.sqrt(math.pi / 2))
    with pytest.raises(ValueError, match="matching must be one of"):
        lion_ar_constant(0.9, matching="sgd")


@given(st.floats(0.0, 0.98))
def test_constants_are_the_tables(beta: float) -> None:
    share = (1 - beta) / (1 + beta)
    assert rotation_constant(SGDRule(9, 9, beta)) == pytest.approx(math.sqrt(2 / (1 + beta)))
    assert rotation_constant(AdamRule(9, 9, beta)) == pytest.approx(math.sqrt(2 * share))
    assert sign_rotation_constant(beta, beta) == pytest.approx(math.sqrt(math.pi * share))
    sigma2 = (1 - beta) ** 2 * ((1 + beta) ** 2 + beta**4 / (1 - beta**2))
    assert sign_rotation_constant(beta**2, beta) == pytest.approx(math.sqrt(math.pi * sigma2))


@pytest.mark.parametrize(
    "rule",
    [
        SGDRule(1e-3, 1e-3, 0.9),
        SGDRule(1e-3, 1e-3, 0.9, nesterov=True),
        AdamRule(1e-3, 1e-3),
        LionRule(1e-3, 1e-3),
        LionRule(1e-3, 1e-3, 0.81, 0.9),
    ],
)
def test_a_constant_is_the_equilibrium_angle_over_the_root(rule: UpdateRule) -> None:
    assert rotation_constant(rule) * 1e-3 == pytest.approx(equilibrium_angle(rule), rel=1e-4)
    assert rotation_constant(rule.at(0.5, 0.0)) == rotation_constant(rule)


def test_adam_with_l2_has_no_constant() -> None:
    with pytest.raises(NoPrediction, match="Adam with L2"):
        rotation_constant(AdamRule(1e-3, 0.1, decoupled=False))


# ------------------------------------------------------------------------------- schedules


@given(numbers, numbers, st.floats(0.1, 2.0), schedules)
def test_at_the_peak_both_schedules_ask_for_the_same(
    lr: float, decay: float, constant: float, schedule: str
) -> None:
    angle = step_angle(lr, decay, constant, lr, schedule)
    assert angle == pytest.approx(constant * math.sqrt(lr * decay))
    assert step_angle(lr, decay, constant, lr, schedule, angle=0.01) == pytest.approx(0.01)


@given(numbers, numbers, numbers, st.floats(0.01, 1.0))
def test_below_the_peak_they_do_not(lr: float, decay: float, peak: float, share: float) -> None:
    linear, sqrt = (step_angle(peak, decay, 1.0, peak, s) for s in ("linear", "sqrt"))
    assert step_angle(share * peak, decay, 1.0, peak, "linear") == pytest.approx(share * linear)
    below = step_angle(share * peak, decay, 1.0, peak, "sqrt")
    assert below == pytest.approx(math.sqrt(share) * sqrt)
    # the equilibrium of that moment, whatever the peak was
    assert step_angle(lr, decay, 1.0, peak, "sqrt") == pytest.approx(math.sqrt(lr * decay))


@given(numbers, numbers, numbers, st.floats(0.1, 10.0), schedules)
def test_only_lr_times_weight_decay_counts(
    lr: float, decay: float, peak: float, k: float, schedule: str
) -> None:
    angle = step_angle(lr, decay, 1.0, peak, schedule)
    assert step_angle(k * lr, decay / k, 1.0, k * peak, schedule) == pytest.approx(angle)
    # a set angle does without weight decay
    given_angle = step_angle(lr, decay, 1.0, peak, schedule, angle=0.01)
    assert step_angle(lr, 0.0, 1.0, peak, schedule, angle=0.01) == given_angle
    assert step_angle(lr, 0.0, 1.0, peak, schedule) == 0


@pytest.mark.parametrize("schedule", ["linear", "sqrt"])
@pytest.mark.parametrize("angle", [None, 0.01])
def test_arrays_and_tensors_get_what_floats_do(schedule: str, angle: float | None) -> None:
    rates = [0.0, 0.01, 0.1]
    wanted = [step_angle(lr, 0.1, 0.7, 0.1, schedule, angle) for lr in rates]
    assert step_angle(np.array(rates), 0.1, 0.7, 0.1, schedule, angle) == pytest.approx(wanted)
    on_device = step_angle(torch.tensor(rates), 0.1, 0.7, torch.tensor(0.1), schedule, angle)
    assert on_device.tolist() == pytest.approx(wanted, rel=1e-6)


def test_a_group_that_never_learns_turns_by_nothing() -> None:
    for schedule in ("linear", "sqrt"):
        assert step_angle(0.0, 0.1, 1.0, 0.0, schedule) == 0


def test_the_peak_is_what_a_scheduler_noted_first() -> None:
    config = {"lr": 1.0}
    live = {**config, "peak_lr": 2.0}
    scheduled = {**live, "initial_lr": 3.0}
    found = [peak_lr_of(g) for g in (config, live, scheduled, {**scheduled, "max_lr": 4.0})]
    assert found == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("chosen", "decay", "angle", "turned"),
    [
        (None, 0.1, None, True),
        (None, 0.0, 0.01, True),
        (None, 0.0, None, False),
        (False, 0.1, 0.01, False),
        (True, 0.1, None, True),
        (None, torch.tensor(0.1), None, True),
    ],
)
def test_what_is_turned(chosen: bool | None, decay: Any, angle: float | None, turned: bool) -> None:
    group = {"weight_decay": decay, "angle": angle}
    assert is_rotational({**group, "rotational": chosen}) is turned
    if chosen is None:
        assert is_rotational(group) is turned


# ------------------------------------------------------------------------------- early steps


def blend(beta: float, nesterov: bool, steps: int) -> np.ndarray:
    """Coefficients of the gradients, newest first, in what LionA takes the sign of."""
    momentum = (1 - beta) * beta ** np.arange(steps)
    return beta * momentum + (1 - beta) * (np.arange(steps) == 0) if nesterov else momentum


@pytest.mark.parametrize(
    ("nesterov", "factors"),
    [(False, (0.199, 0.577, 0.931, 0.991)), (True, (0.380, 0.636, 0.939, 0.992))],
)
def test_reference_factors(nesterov: bool, factors: tuple[float, ...]) -> None:
    for t, factor in zip((1, 10, 50, 100), factors, strict=True):
        assert inverse_bias_factor(0.98, t, nesterov) == pytest.approx(factor, abs=6e-4)


@given(st.floats(0.0, 0.98), st.integers(1, 60), st.booleans())
def test_the_factor_is_the_share_of_the_variance_that_is_there(
    beta: float, t: int, nesterov: bool
) -> None:
    squares = blend(beta, nesterov, 3_000) ** 2
    wanted = math.sqrt(squares[:t].sum() / squares.sum())
    assert inverse_bias_factor(beta, t, nesterov) == pytest.approx(wanted, rel=1e-9)
    # control: the share of the mean, Adam's bias correction, is another number
    if not nesterov and beta > 0.5 and t < 5:
        assert abs(1 - beta**t - wanted) > 0.05 * wanted


def test_each_gradient_contributes_the_same_in_the_end() -> None:
    """A sign step is the blend over its RMS so far; the correction makes that the final RMS."""
    beta, steps = 0.9, 400
    momentum = (1 - beta) * beta ** np.arange(steps)
    rms = np.sqrt(np.cumsum(momentum**2))

    def contributions(factors: np.ndarray) -> np.ndarray:
        first = [
            (factors[t] * momentum[t - k] / rms[t]) for k in (0, 100) for t in range(k, k + 200)
        ]
        return np.reshape(first, (2, 200)).sum(1)

    t = np.arange(1, steps + 1)
    corrected = contributions(inverse_bias_factor(beta, t))
    assert corrected[0] == pytest.approx(corrected[1])
    plain = contributions(np.ones(steps))
    adams = contributions(1 - beta**t)
    assert plain[0] > 1.2 * plain[1]
    assert adams[0] < 0.9 * adams[1]


def test_the_factor_of_an_array_of_steps() -> None:
    steps = np.array([1.0, 10.0, np.inf])
    assert inverse_bias_factor(0.98, steps) == pytest.approx([0.199, 0.577, 1.0], abs=6e-4)
    assert inverse_bias_factor(0.0, steps, True) == pytest.approx([1.0, 1.0, 1.0])


# ------------------------------------------------------------------------------- the rule
