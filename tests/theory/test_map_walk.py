"""The fast walk is the readable one, for every rule, schedule and interval."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_hooks.theory import (
    AdamRule,
    LionRule,
    SGDRule,
    StepMoments,
    UpdateRule,
    second_moment_trajectory,
)
from smd_hooks.theory.map_walk import walk_by_maps
from smd_hooks.theory.step_maps import drives, stays_real
from smd_hooks.theory.trajectory import walk_step_by_step

RULES: list[UpdateRule] = [
    SGDRule(0.1, 0.005),
    SGDRule(0.1, 0.005, 0.9),
    SGDRule(0.2, 0.005, 0.9, dampening=0.5),
    SGDRule(0.1, 0.005, 0.9, nesterov=True),
    SGDRule(0.02, 0.1, 0.9, decoupled=True),
    SGDRule(0.02, 0.1, 0.9, dampening=0.3, decoupled=True),
    SGDRule(0.02, 0.1, 0.9, nesterov=True, decoupled=True),
    AdamRule(0.004, 0.5, 0.9, 0.95),
    AdamRule(0.004, 0.5, 0.0, 0.95),
    LionRule(4e-4, 2.5, 0.9, 0.95),
]
LAYERS = 4


def schedules(rule: UpdateRule, steps: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """A warmup, a drop and a cosine; layers of two schedules, one of them rescaled."""
    done = (steps - steps[0]) / max(steps[-1] - steps[0], 1)
    rates = rule.lr * np.minimum(1, 0.1 + 5 * done) * np.where(done < 0.6, 1, 0.1)
    smooth = rule.lr / 2 * (1 + np.cos(np.pi * done))
    samples = len(steps)
    scale = np.ones((samples, LAYERS))
    scale[samples // 2 :, 1] = 0.6
    decay = np.full((samples, LAYERS), rule.weight_decay)
    decay[:, 3] = 0.0
    shape = (samples, LAYERS)
    return {
        "lr": np.stack([rates, rates, smooth, rates], axis=1),
        "weight_decay": decay,
        "moments": StepMoments(
            gradient=rng.lognormal(0, 1, shape),
            alignment=rng.uniform(-0.3, 0.6, shape) * 0.2,
            direction=rng.lognormal(2, 0.3, shape),
            radial=rng.normal(-0.1, 0.05, shape),
            unlike=rng.normal(0, 0.1, shape),
        ),
        "initial_norm": rng.lognormal(0, 1, LAYERS),
        "rescale": scale,
    }


def readable(rule: UpdateRule, steps: np.ndarray, from_first_step: bool, **given: Any) -> Any:
    order = ("lr", "weight_decay", "moments", "initial_norm", "rescale")
    return walk_step_by_step(rule, steps, *(given[name] for name in order), from_first_step)


@settings(deadline=None, max_examples=100)
@given(
    rule=st.sampled_from(RULES),
    gaps=st.lists(st.sampled_from([1, 1, 1, 2, 3, 4, 25, 50]), min_size=1, max_size=40),
    from_first_step=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_fast_walk_is_the_readable_one(
    rule: UpdateRule, gaps: list[int], from_first_step: bool, seed: int
) -> None:
    steps = np.cumsum([7, *gaps])
    given = schedules(rule, steps, np.random.default_rng(seed))
    law = second_moment_trajectory(rule, steps, from_first_step=from_first_step, **given)
    norm, angle = readable(rule, steps, from_first_step, **given)
    assert np.allclose(law.weight_norm, norm, rtol=1e-10, atol=0)
    # an angle is the root of a difference, which may cancel
    assert np.allclose(law.angular_update, angle, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_control_another_rule_walks_elsewhere(rule: UpdateRule) -> None:
    steps = np.arange(40)
    given = schedules(rule, steps, np.random.default_rng(0))
    changed = {"momentum": 0.89} if isinstance(rule, SGDRule) else {"beta1": 0.89}
    other = replace(rule, **changed)
    if isinstance(rule, LionRule):  # whose betas drive nothing that is not measured
        given["moments"] = replace(given["moments"], radial=given["moments"].radial * 1.01)
    law = second_moment_trajectory(other, steps, **given)
    given = schedules(rule, steps, np.random.default_rng(0))
    angle = readable(rule, steps, True, **given)[1]
    assert not np.allclose(law.angular_update, angle, rtol=1e-6, atol=0)


def test_moments_of_no_real_vectors_are_stopped_at_zero() -> None:
    """Gradients that oppose the momentum more than they are large: maps would go below 0."""
    rule, steps = SGDRule(0.1, 0.005, 0.9), np.arange(200)
    given = schedules(rule, steps, np.random.default_rng(0))
    against = -3 * given["moments"].gradient
    given["moments"] = replace(given["moments"], alignment=against)
    assert not stays_real(rule, drives(rule, given["moments"])).any()
    law = second_moment_trajectory(rule, steps, **given)
    norm, angle = readable(rule, steps, True, **given)
    assert np.array_equal(law.weight_norm, norm)
    assert np.array_equal(law.angular_update, angle)
    one = {name: given[name][:, :1] for name in ("lr", "weight_decay")}
    squares = walk_by_maps(
        rule,
        steps,
        *(values[:, 0] for values in one.values()),
        given["moments"][:, :1],
        given["initial_norm"][:1],
        None,
        True,
    )[2]
    assert squares.min() < 0


def test_a_norm_that_measured_parts_would_make_negative_is_stopped_too() -> None:
    rule, steps = LionRule(0.1, 0.1), np.arange(50)
    given = schedules(rule, steps, np.random.default_rng(0))
    given["moments"] = replace(given["moments"], radial=np.full((50, LAYERS), 5.0))
    law = second_moment_trajectory(rule, steps, **given)
    norm, angle = readable(rule, steps, True, **given)
    assert norm.min() < 1e-100
    assert np.array_equal(law.weight_norm, norm)
    assert np.array_equal(law.angular_update, angle)


def test_what_was_not_measured_of_one_layer_spoils_no_other() -> None:
    for rule in RULES:
        steps = np.arange(30)
        given = schedules(rule, steps, np.random.default_rng(0))
        whole = second_moment_trajectory(rule, steps, **given)
        for name in ("gradient", "alignment", "direction", "radial"):
            getattr(given["moments"], name)[10:, 0] = np.nan
        holed = second_moment_trajectory(rule, steps, **given)
        assert np.isnan(holed.angular_update[11:, 0]).all()
        assert np.allclose(holed.angular_update[:10, 0], whole.angular_update[:10, 0])
        assert np.allclose(holed.angular_update[:, 1:], whole.angular_update[:, 1:])
