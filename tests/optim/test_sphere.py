"""The geometry of a step, literally and as factors, against loops in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_hooks.optim.sphere import (
    average_rotation_factors,
    centring_factors,
    great_circle_factors,
    tangent,
    turned,
)

ROWS, ELEMENTS = 6, 9
ANGLE, RADIUS, DECAY, STEP = 0.3, 1.7, 0.9, 4


def rows(seed: int, elements: int = ELEMENTS, offset: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return offset + torch.randn(ROWS, elements, generator=generator, dtype=torch.float64)


def sums_of(w: Tensor, u: Tensor) -> Tensor:
    return torch.stack([p.sum(1) for p in (w * w, w * u, u * u, w, u)], 1)


def per_row(value: float) -> Tensor:
    return torch.full((ROWS,), value, dtype=torch.float64)


def moved(factors: Tensor, w: Tensor, u: Tensor) -> np.ndarray:
    a, b, c = factors.split(1, dim=1)
    return (a * w + b * u + c).numpy()


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return 2 * math.asin(np.linalg.norm(a - b) / 2)


@given(
    seed=st.integers(0, 1000),
    angle=st.floats(1e-6, 1.4),
    radius=st.floats(1e-3, 1e3),
    elements=st.integers(2, 40),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_great_circle_turns_by_the_angle_whatever_the_direction(
    seed: int, angle: float, radius: float, elements: int
) -> None:
    w, u = rows(seed, elements), torch.sign(rows(seed + 1, elements))
    across = sums_of(w, u)
    assume(bool((across[:, 2] - across[:, 1] ** 2 / across[:, 0]).min() > 1e-2 * elements))
    after = moved(great_circle_factors(across, per_row(radius), per_row(angle)), w, u)
    literal = turned(w, tangent(w, u), angle, per_row(radius)[:, None]).numpy()
    for before, direction, end, other in zip(w.numpy(), u.numpy(), after, literal, strict=True):
        assert angle_between(before, end) == pytest.approx(angle, rel=1e-8)
        assert np.linalg.norm(end) == pytest.approx(radius, rel=1e-12)
        # within the plane of weight and direction, away from the direction
        plane = np.stack([before, direction])
        left = end - plane.T @ np.linalg.lstsq(plane.T, end, rcond=None)[0]
        assert np.linalg.norm(left) < 1e-10 * radius
        forward = end / radius - math.cos(angle) * before / np.linalg.norm(before)
        assert forward @ direction < 0
        assert np.allclose(end, other, rtol=0, atol=1e-11 * radius)


@pytest.mark.parametrize("zero_mean", [True, False])
def test_an_average_rotation_against_a_loop(zero_mean: bool) -> None:
    w, u = rows(0, offset=0.3), rows(1, offset=0.5)
    if zero_mean:
        w -= w.mean(1, keepdim=True)
    before = per_row(2.0)
    factors, update_norm = average_rotation_factors(
        sums_of(w, u),
        per_row(ELEMENTS),
        torch.full((ROWS,), zero_mean),
        per_row(RADIUS),
        per_row(ANGLE),
        before,
        per_row(DECAY),
        per_row(1 - DECAY**STEP),
    )
    after = moved(factors, w, u)
    for i, (weight, direction) in enumerate(zip(w.numpy(), u.numpy(), strict=True)):
        if zero_mean:
            direction = direction - direction.mean()
        direction = direction - weight * (weight @ direction) / (weight @ weight)
        average = DECAY * 2.0**2 + (1 - DECAY) * (direction @ direction)
        typical = math.sqrt(average / (1 - DECAY**STEP))
        end = weight - ANGLE * RADIUS * direction / typical
        end *= RADIUS / np.linalg.norm(end)
        assert np.allclose(after[i], end, rtol=0, atol=1e-7)  # TINY is in the one, not the other
        assert float(update_norm[i]) == pytest.approx(math.sqrt(average), rel=1e-12)
        if zero_mean:
            assert abs(after[i].mean()) < 1e-15


def test_control_the_angle_is_right_on_average_only() -> None:
    """One direction twice as long as usual turns by about twice the angle."""
    w, u = rows(0), rows(1)
    flags = torch.zeros(ROWS, dtype=torch.bool)
    usual = tangent(w, u).norm(dim=1) / 2
    factors, _ = average_rotation_factors(
        sums_of(w, u),
        per_row(ELEMENTS),
        flags,
        w.norm(dim=1),
        per_row(0.01),
        usual,
        per_row(1 - 1e-9),
        per_row(1.0),
    )
    for before, end in zip(w.numpy(), moved(factors, w, u), strict=True):
        assert angle_between(before, end) == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize("factor", [1.0, -3.0, 0.0])
def test_a_direction_along_the_weight_turns_nothing(factor: float) -> None:
    """And none at all: neither may divide by zero."""
    w = rows(0)
    u = factor * w
    exactly = great_circle_factors(sums_of(w, u), w.norm(dim=1), per_row(ANGLE))
    on_average, update_norm = average_rotation_factors(
        sums_of(w, u),
        per_row(ELEMENTS),
        torch.zeros(ROWS, dtype=torch.bool),
        w.norm(dim=1),
        per_row(ANGLE),
        per_row(0.0),
        per_row(DECAY),
        per_row(1.0),
    )
    literal = turned(w, tangent(w, u), ANGLE, w.norm(dim=1, keepdim=True))
    for end in (moved(exactly, w, u), moved(on_average, w, u), literal.numpy()):
        assert np.allclose(end, w.numpy(), rtol=1e-13)
    assert update_norm.abs().max() == 0


def test_a_tangent_has_no_part_along_the_weight() -> None:
    w, u = rows(0), rows(1, offset=2.0)
    assert (tangent(w, u) * w).sum(1).abs().max() < 1e-13
    centred = w - w.mean(1, keepdim=True)
    free = tangent(centred, u, zero_mean=True)
    assert free.sum(1).abs().max() < 1e-13
    assert (tangent(w, u).sum(1).abs() > 0.1).any()


def test_centring_keeps_the_norm_and_is_done_once() -> None:
    w = rows(0, offset=0.7)
    factors = centring_factors(sums_of(w, w), per_row(ELEMENTS))
    once = torch.from_numpy(moved(factors, w, torch.zeros_like(w)))
    assert once.mean(1).abs().max() < 1e-15
    assert torch.allclose(once.norm(dim=1), w.norm(dim=1), rtol=1e-14)
    left = w - w.mean(1, keepdim=True)
    cosines = (once * left).sum(1) / once.norm(dim=1) / left.norm(dim=1)
    assert cosines.min() > 1 - 1e-14

    stored = once.float().double()
    again = centring_factors(sums_of(stored, stored), per_row(ELEMENTS))
    assert torch.equal(again, torch.tensor([[1.0, 0.0, 0.0]] * ROWS, dtype=torch.float64))


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_centring_leaves_rows_of_one_value(value: float) -> None:
    w = torch.full((ROWS, ELEMENTS), value, dtype=torch.float64)
    factors = centring_factors(sums_of(w, w), per_row(ELEMENTS))
    assert np.array_equal(moved(factors, w, torch.zeros_like(w)), w.numpy())
