"""What AdamW's preconditioner leaves along a weight whose gradients are orthogonal to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_hooks.theory import (
    AdamRule,
    StepMoments,
    early_excess,
    preconditioned_radial,
    second_moment_trajectory,
    unlike_parts,
)

from .walks import ELEMENTS, Walk

RULE = AdamRule(0.004, 0.5, 0.9, 0.95)
STEPS, SQUARE = 600, 0.7
# every fourth coordinate has ten times the gradients of the others
SIZES = np.where(np.arange(ELEMENTS) % 4 == 0, 10.0, 1.0)


def inferred(walk: Walk, every: int = 1) -> np.ndarray:
    steps = np.arange(0, len(walk.angle), every)
    constant = np.ones(len(steps))
    settings = (RULE.lr * constant, RULE.weight_decay * constant)
    direction = walk.moments.need("direction")[::every, 0] / early_excess(RULE, steps + 1.0)
    return preconditioned_radial(
        RULE, steps, *settings, direction, walk.moments.need("radial")[::every, 0]
    )


def law(walk: Walk, unlike: np.ndarray | None) -> np.ndarray:
    steps = np.arange(len(walk.angle))
    column = np.ones((len(steps), 1))
    direction = walk.moments.need("direction") / early_excess(RULE, steps + 1.0)[:, None]
    result = second_moment_trajectory(
        RULE,
        steps,
        RULE.lr * column,
        RULE.weight_decay * column,
        StepMoments(direction=direction, unlike=None if unlike is None else unlike[:, None]),
        walk.norm[:1],
    )
    return np.abs(np.log(result.weight_norm[:, 0] / walk.norm))


def test_coordinates_of_different_sizes_push_the_norm_up_and_the_law_follows() -> None:
    walk = Walk(RULE, np.full(STEPS, RULE.lr), sizes=SIZES)
    assert law(walk, inferred(walk)).max() < 0.005
    # control: the law that takes preconditioned gradients for orthogonal to the weight
    assert law(walk, None)[-300:].mean() > 0.03


def test_equal_coordinates_leave_nothing() -> None:
    unequal = inferred(Walk(RULE, np.full(STEPS, RULE.lr), sizes=SIZES))[100:].mean()
    equal = inferred(Walk(RULE, np.full(STEPS, RULE.lr)))[100:].mean()
    assert unequal < -0.04
    assert abs(equal) < 0.2 * abs(unequal)


@given(
    beta=st.floats(0, 0.99),
    decay=st.floats(0, 2.0),
    push=st.floats(-3, 3),
    every=st.integers(1, 40),
    empty=st.booleans(),
    grown=st.sampled_from([1.0, 0.5]),
)
def test_it_is_what_the_mean_was_fed_with(
    beta: float, decay: float, push: float, every: int, empty: bool, grown: float
) -> None:
    """A walk in ⟨w,u⟩ alone, written out step by step, with the weight rescaled half-way."""
    rule, length = AdamRule(0.01, decay, beta), 8 * every + 1
    steps, along, inherited = np.arange(length), [], 0.0 if empty else -0.3
    excess = early_excess(rule, steps + 1.0) if empty else np.ones(length)
    correction = 1 - beta ** (steps + 1.0) if empty else np.ones(length)
    scale = np.where(steps < 4 * every, 1.0, grown)
    for step in steps:
        inherited *= grown if step == 4 * every else 1.0
        mean = beta * inherited + (1 - beta) * push
        along.append(mean / correction[step])
        inherited = (1 - rule.lr * decay) * mean - rule.lr * SQUARE * excess[step] * correction[
            step
        ]
    some = steps[::every]
    settings = (np.full(9, rule.lr), np.full(9, decay), np.full(9, SQUARE))
    result = preconditioned_radial(
        rule, some, *settings, np.array(along)[some], scale[some], from_first_step=empty
    )
    assert np.isnan(result[0]) != empty
    # a weight that is rescaled between two samples has two ⟨w, Dg⟩
    compared = np.delete(result, [0, 4] if every > 1 else [0])
    np.testing.assert_allclose(compared, push, rtol=1e-6, atol=1e-6)
    assert not empty or result[0] == pytest.approx(push)


def test_sparse_samples_tell_the_same() -> None:
    walk = Walk(RULE, np.full(2_000, RULE.lr), sizes=SIZES)
    dense, sparse = inferred(walk)[100:].mean(), inferred(walk, every=8)[13:].mean()
    assert sparse == pytest.approx(dense, rel=0.1)


def test_a_radial_gradient_is_no_unlike_part() -> None:
    """Coordinates that are divided by one number: all of ⟨w, Dg⟩ is that times ⟨w, g⟩."""
    d, radial, gradient = 3.0, np.array([-0.2, 0.5]), np.array([4.0, 4.0])
    direction = d**2 * gradient * (1 - RULE.beta1) / (1 + RULE.beta1)
    left = unlike_parts(RULE, d * radial, radial, gradient, direction)
    np.testing.assert_allclose(left, 0, atol=1e-12)
    assert unlike_parts(RULE, np.ones(1), np.zeros(1), np.zeros(1), np.zeros(1)) == 1
