from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.replicas.scaling import (
    RAMP,
    SHORTEST,
    Segment,
    common_factor,
    decay_multiplier,
    kept_length,
    second_moment_decay,
    segments,
    slowdown,
    time_map,
)
from smd_hooks.theory import (
    AdamRule,
    LionRule,
    NoPrediction,
    RotationalRule,
    SGDRule,
    UpdateRule,
    decay_factor,
    equilibrium_norm,
)

SGD = SGDRule(0.2, 1e-4)
SGDM = SGDRule(0.2, 1e-4, momentum=0.9)
TURNED = RotationalRule(1e-3, 0.1, constant=1.0, peak_lr=1e-3)


def at_speed(rule: UpdateRule, factor: float) -> UpdateRule:
    return rule.at(rule.lr, rule.weight_decay * decay_multiplier(rule, factor))


def test_the_fastest_run_of_the_figure_sets_the_factor() -> None:
    assert slowdown(SGD) == pytest.approx(12_500)
    assert slowdown(SGDM) == pytest.approx(1_250)
    assert common_factor([SGD, SGDM]) == 25
    assert common_factor([SGD]) == 250
    assert common_factor([SGDM, TURNED]) == 25


def test_what_does_not_relax_has_no_say() -> None:
    assert math.isnan(slowdown(TURNED))
    assert math.isnan(slowdown(AdamRule(1e-3, 0.1, decoupled=False)))
    assert common_factor([TURNED]) == 1
    assert common_factor([SGDM.at(0.2, 0.0)]) == 1


def test_a_run_that_is_fast_already_is_not_slowed_down() -> None:
    fast = SGDRule(4.8, 1e-3, momentum=0.9)
    assert slowdown(fast) < SHORTEST
    assert common_factor([fast]) == 1


@given(
    rule=st.one_of(
        st.builds(
            SGDRule,
            lr=st.floats(1e-4, 1.0),
            weight_decay=st.floats(1e-6, 1e-3),
            momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999]),
            nesterov=st.booleans(),
        ),
        st.builds(AdamRule, lr=st.floats(1e-5, 1e-2), weight_decay=st.floats(1e-3, 0.5)),
        st.builds(LionRule, lr=st.floats(1e-5, 1e-2), weight_decay=st.floats(1e-3, 0.5)),
    )
)
def test_every_replica_relaxes_slowly_enough_and_without_oscillation(rule: UpdateRule) -> None:
    factor = common_factor([rule])
    if factor == 1:
        return
    scaled = at_speed(rule, factor)
    decay_factor(scaled)  # raises where momentum makes the norm oscillate
    assert slowdown(scaled) >= SHORTEST * (1 - 1e-5)
    assert slowdown(scaled) == pytest.approx(slowdown(rule) / factor, rel=1e-5)


def test_long_momentum_is_bound_by_its_oscillation_not_by_its_relaxation() -> None:
    rule = SGDRule(0.1, 1e-5, momentum=0.99)
    factor = common_factor([rule])
    assert factor < slowdown(rule) / SHORTEST
    with pytest.raises(NoPrediction, match="oscillate"):
        decay_factor(at_speed(rule, slowdown(rule) / SHORTEST))


def rate_of_adam_with_l2(rule: AdamRule) -> float:
    """Share of w_i² that L2 takes per step in equilibrium: 2·lr·λ·r*/s_i, with s_i = 1."""
    return 2 * rule.lr * rule.weight_decay * equilibrium_norm(rule, moment=1.0)


def test_adam_with_l2_needs_more_decay_for_the_same_speed() -> None:
    rule = AdamRule(1e-3, 5e-4, decoupled=False)
    gained = rate_of_adam_with_l2(at_speed(rule, 10)) / rate_of_adam_with_l2(rule)
    assert gained == pytest.approx(10, rel=1e-5)
    plainly = rate_of_adam_with_l2(rule.at(1e-3, 5e-3)) / rate_of_adam_with_l2(rule)
    assert plainly == pytest.approx(10 ** (2 / 3))  # the control: λ × 10 is not 10 times as fast


@pytest.mark.parametrize(
    ("beta2", "factor", "expected"),
    [
        (0.999, 1, 0.999),
        (0.999, 5, 0.995),
        (0.999, 50, 0.99),
        (0.95, 50, 0.95),
        (0.9999, 10, 0.999),
    ],
)
def test_second_moments_forget_faster_but_not_below_a_hundred_steps(
    beta2: float, factor: float, expected: float
) -> None:
    assert second_moment_decay(beta2, factor) == pytest.approx(expected)


def test_a_schedule_is_cut_at_its_knots_into_levels_and_ramps() -> None:
    starts = np.array([0, 1, 2, 3, 100, 400])
    lr = np.array([0.1, 0.2, 0.3, 0.4, 0.04, 0.4])
    assert segments([3, 100, 250, 400, 900], starts, 500, lr) == [
        Segment(0, 3, None),
        Segment(3, 100, 1.0),
        Segment(100, 250, pytest.approx(0.1)),
        Segment(250, 400, pytest.approx(0.1)),
        Segment(400, 500, 1.0),
    ]


stages = st.lists(
    st.tuples(st.integers(1, 500_000), st.none() | st.floats(1e-4, 1.0)), min_size=1, max_size=6
)


@given(stages=stages, factor=st.floats(1, 1000), longest=st.floats(10, 1e6))
def test_every_stage_keeps_its_length_to_half_a_step(
    stages: list[tuple[int, float | None]], factor: float, longest: float
) -> None:
    pieces, start = [], 0
    for length, level in stages:
        pieces.append(Segment(start, start + length, level))
        start += length
    to = time_map(pieces, factor, longest)
    for piece in pieces:
        length = piece.end - piece.start
        steps = to(piece.end) - to(piece.start)
        kept = kept_length(piece, longest)
        assert kept == length or kept * (piece.level or 0) == pytest.approx(longest)
        fewest = 1 if piece.level is not None else min(RAMP, length)
        assert steps >= fewest
        assert steps == fewest or abs(steps - kept / factor) <= 0.5


def test_time_beyond_the_end_runs_at_the_same_speed() -> None:
    to = time_map([Segment(0, 1000, 1.0)], 10, 500)
    assert (to(0), to(500), to(1000), to(1100)) == (0, 25, 50, 60)
