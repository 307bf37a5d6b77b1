"""Angles that fp32 arithmetic loses, and the momentum product that is not kept."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_hooks.measure.geometry import (
    STEP_STATISTICS,
    dot,
    radial_statistic,
    step_statistics,
)


def angle_of_step(weight: Tensor, step: Tensor) -> Tensor:
    after = weight.double() + step.double()
    row = step_statistics(weight, after, weight, None, 0.0, 1.0, 0.0)
    return row[STEP_STATISTICS.index("angular_update")]


def turned(angle: float, length: float = 1.0) -> tuple[Tensor, Tensor]:
    """A random fp32 weight, and it turned by ``angle`` and stretched by ``length``."""
    generator = torch.Generator().manual_seed(1)
    w, u = torch.randn(2, 50_000, dtype=torch.float64, generator=generator)
    u -= w * (u @ w) / (w @ w)
    u *= w.norm() / u.norm()
    after = length * (w * math.cos(angle) + u * math.sin(angle))
    return w.float(), after.float()


@pytest.mark.parametrize("angle", [1e-6, 3e-5, 1e-4, 3.2e-4, 1e-2, 1.0, 3.0])
@pytest.mark.parametrize("length", [1.0, 0.999])
def test_small_angles_in_fp32_weights(angle: float, length: float) -> None:
    before, after = turned(angle, length)
    measured = float(angle_of_step(before, after.double() - before.double()))
    # the weights themselves are rounded to 6e-8 each, which is 3e-8 of the norm
    assert measured == pytest.approx(angle, rel=1e-4, abs=5e-8)


def test_control_the_arccosine_in_fp32_is_blind() -> None:
    before, after = turned(1e-4)
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=0)
    assert abs(float(torch.acos(cosine.clamp(-1, 1))) / 1e-4 - 1) > 0.5


@given(st.floats(0.001, 0.3), st.floats(-0.9, 0.9))
def test_the_exact_step_of_a_given_cosine(step: float, rho: float) -> None:
    """w' = w − e‖w‖u with cos(u, w) = ρ: tan θ = e√(1−ρ²)/(1−eρ)."""
    w = torch.tensor([2.0, 0.0], dtype=torch.float64)
    u = torch.tensor([rho, math.sqrt(1 - rho**2)], dtype=torch.float64)
    wanted = math.atan(step * math.sqrt(1 - rho**2) / (1 - step * rho))
    assert float(angle_of_step(w, -step * 2.0 * u)) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("rho", "wanted"), [(0.0, 0.099668652), (0.5, 0.090909298), (-0.5, 0.082292343)]
)
def test_reference_angles(rho: float, wanted: float) -> None:
    w = torch.tensor([1.0, 0.0], dtype=torch.float64)
    u = torch.tensor([rho, math.sqrt(1 - rho**2)], dtype=torch.float64)
    assert float(angle_of_step(w, -0.1 * u)) == pytest.approx(wanted, abs=1e-9)


def test_nothing_turns_without_a_weight_or_a_step() -> None:
    w = torch.randn(5)
    assert float(angle_of_step(w, torch.zeros(5))) == 0
    assert float(angle_of_step(torch.zeros(5), w)) == 0
    assert float(angle_of_step(w, -0.5 * w)) == pytest.approx(0, abs=1e-6)


def test_sums_are_exact_where_fp32_sums_are_not() -> None:
    x = torch.full((4_000_000,), 0.1)
    exact = 4_000_000 * float(x[0].double()) ** 2
    assert float(dot(x, x)) == pytest.approx(exact, rel=1e-10)


@settings(deadline=None)
@given(
    st.sampled_from([(3, 4), (2, 3, 3, 3), (4, 1, 1, 1)]),
    st.floats(0.1, 0.99),
    st.floats(0.0, 0.9),
    st.floats(0.0, 0.1),
    st.booleans(),
)
def test_step_statistics_against_the_slow_reference(
    shape: tuple[int, ...], momentum: float, dampening: float, decay: float, channels_last: bool
) -> None:
    torch.manual_seed(0)
    w, g, v = torch.randn(3, *shape, dtype=torch.float64)
    v_after = momentum * v + (1 - dampening) * (g + decay * w)
    after = w - 0.1 * v_after
    if channels_last and len(shape) == 4:
        after = after.contiguous(memory_format=torch.channels_last)
    row = step_statistics(w, after, g, v_after, momentum, 1 - dampening, decay)
    a, b = w.flatten().tolist(), after.flatten().tolist()
    c, d = g.flatten().tolist(), v.flatten().tolist()

    def product(x: list[float], y: list[float]) -> float:
        return math.fsum(i * j for i, j in zip(x, y, strict=True))

    norm = math.sqrt(product(a, a))
    wanted = {
        "weight_norm": norm,
        "gradient_norm": math.sqrt(product(c, c)),
        "gradient_momentum_dot": product(d, c),
        "radial_cosine": product(a, c) / norm / math.sqrt(product(c, c)),
        "update_norm": math.dist(a, b),
        "angular_update": math.acos(product(a, b) / norm / math.sqrt(product(b, b))),
    }
    assert dict(zip(STEP_STATISTICS, row.tolist(), strict=True)) == pytest.approx(
        wanted, rel=1e-6, abs=1e-9
    )


def test_the_radial_statistic_is_one_by_chance_and_zero_for_tangents() -> None:
    torch.manual_seed(0)
    w = torch.randn(100)
    unrelated = torch.stack([radial_statistic(w, torch.randn(100)) for _ in range(400)])
    assert float(unrelated.mean()) == pytest.approx(1, abs=0.25)
    g = torch.randn(100)
    tangent = g - w * dot(w, g).float() / dot(w, w).float()
    assert float(radial_statistic(w, tangent)) < 1e-10
    assert float(radial_statistic(w, 1e-20 * g)) == pytest.approx(float(radial_statistic(w, g)))
    assert torch.isnan(radial_statistic(w, torch.zeros(100)))
