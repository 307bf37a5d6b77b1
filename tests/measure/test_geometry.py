"""Angles that fp32 arithmetic loses, and the momentum product that is not kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_hooks.measure.geometry import (
    STEP_SUMS,
    as_vectors,
    radial_statistic,
    statistics,
    step_sums,
)


def angle_between(before: Tensor, after: Tensor) -> float:
    sums = step_sums(before.flatten(), after.flatten(), before.flatten(), None)
    return float(statistics(sums[None].numpy())["angular_update"][0])


def angle_of_step(weight: Tensor, step: Tensor) -> float:
    return angle_between(weight, weight.double() + step.double())


def turned(angle: float, length: float = 1.0, size: int = 50_000) -> tuple[Tensor, Tensor]:
    """A random fp32 weight, and it turned by ``angle`` and stretched by ``length``."""
    generator = torch.Generator().manual_seed(1)
    w, u = torch.randn(2, size, dtype=torch.float64, generator=generator)
    u -= w * (u @ w) / (w @ w)
    u *= w.norm() / u.norm()
    after = length * (w * math.cos(angle) + u * math.sin(angle))
    return w.float(), after.float()


@pytest.mark.parametrize("size", [27, 576, 50_000, 2_400_000])
@pytest.mark.parametrize("angle", [1e-6, 3e-5, 1e-4, 3.2e-4, 1e-2, 1.0, 3.0])
@pytest.mark.parametrize("length", [1.0, 0.999, 0.9])
def test_angles_between_fp32_weights_are_exact(size: int, angle: float, length: float) -> None:
    before, after = turned(angle, length, size)
    # the angle that the rounded weights really have, by the chord between unit vectors
    w, w2 = before.numpy().astype(np.longdouble), after.numpy().astype(np.longdouble)
    chord = w2 / np.sqrt((w2 * w2).sum()) - w / np.sqrt((w * w).sum())
    wanted = 2 * float(np.arcsin(np.sqrt((chord * chord).sum()) / 2))
    assert angle_between(before, after) == pytest.approx(wanted, rel=1e-4)
    # and rounding to fp32 moved it by 3e-8 at most
    assert wanted == pytest.approx(angle, abs=1e-7)


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
    assert angle_of_step(w, -step * 2.0 * u) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("rho", "wanted"), [(0.0, 0.099668652), (0.5, 0.090909298), (-0.5, 0.082292343)]
)
def test_reference_angles(rho: float, wanted: float) -> None:
    w = torch.tensor([1.0, 0.0], dtype=torch.float64)
    u = torch.tensor([rho, math.sqrt(1 - rho**2)], dtype=torch.float64)
    assert angle_of_step(w, -0.1 * u) == pytest.approx(wanted, abs=1e-9)


def test_nothing_turns_without_a_weight_or_a_step() -> None:
    w = torch.randn(5)
    assert angle_of_step(w, torch.zeros(5)) == 0
    assert angle_of_step(torch.zeros(5), w) == 0
    assert angle_of_step(w, -0.5 * w) == pytest.approx(0, abs=1e-6)


def test_sums_are_exact_where_fp32_sums_are_not() -> None:
    x = torch.full((4_000_000,), 0.1)
    exact = 4_000_000 * float(x[0].double()) ** 2
    sums = dict(zip(STEP_SUMS, step_sums(x, x, x, x).tolist(), strict=True))
    assert sums["ww"] == sums["gg"] == sums["bg"] == pytest.approx(exact, rel=1e-10)
    assert abs(float((x * x).sum()) / exact - 1) > 1e-9  # the control: sums in fp32 drift


@settings(deadline=None)
@given(
    st.sampled_from([(3, 4), (2, 3, 3, 3), (4, 1, 1, 1), (4, 5, 1, 1)]),
    st.sampled_from([torch.float64, torch.float32]),
    st.booleans(),
    st.booleans(),
)
def test_sums_against_the_slow_reference(
    shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, per_row: bool
) -> None:
    torch.manual_seed(0)
    tensors = list(torch.randn(4, *shape, dtype=dtype))
    if channels_last and len(shape) == 4:
        tensors = [t.contiguous(memory_format=torch.channels_last) for t in tensors]
        tensors[2] = tensors[2].contiguous()  # a gradient need not follow its weight
    sums = step_sums(*as_vectors(tensors, per_row)).reshape(-1, len(STEP_SUMS))
    rows = [t.reshape(shape[0], -1) if per_row else t.reshape(1, -1) for t in tensors]
    for row, got in enumerate(sums.tolist()):
        w, after, g, v = (t[row].double().tolist() for t in rows)
        d = [b - a for a, b in zip(w, after, strict=True)]
        pairs = ((w, w), (w, d), (d, d), (g, g), (w, g), (v, g))
        wanted = [math.fsum(a * b for a, b in zip(x, y, strict=True)) for x, y in pairs]
        assert got == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_rows_of_sums_add_up_to_those_of_the_tensor() -> None:
    torch.manual_seed(0)
    tensors = list(torch.randn(4, 5, 3, 2, 2))
    whole = step_sums(*as_vectors(tensors))
    assert torch.allclose(step_sums(*as_vectors(tensors, True)).sum(0), whole, rtol=1e-12)


def test_channels_last_weights_are_viewed_not_copied() -> None:
    tensors = [torch.randn(4, 5, 3, 3).to(memory_format=torch.channels_last) for _ in range(4)]
    for per_row in (False, True):
        for tensor, vector in zip(tensors, as_vectors(tensors, per_row), strict=True):
            assert vector.data_ptr() == tensor.data_ptr()


def test_statistics_against_their_definitions() -> None:
    torch.manual_seed(0)
    w, after, g = torch.randn(3, 50, dtype=torch.float64)
    row = statistics(step_sums(w, after, g, g)[None].numpy())
    d = after - w
    wanted = {
        "weight_norm": float(w.norm()),
        "gradient_norm": float(g.norm()),
        "gradient_momentum_dot": float(g @ g),
        "radial_cosine": float(w @ g / w.norm() / g.norm()),
        "update_norm": float(d.norm()),
        "radial_update": float(w @ d / w.norm()),
        "angular_update": math.acos(float(w @ after / w.norm() / after.norm())),
    }
    assert {name: float(column[0]) for name, column in row.items()} == pytest.approx(wanted)


def test_the_radial_statistic_is_one_by_chance_and_zero_for_tangents() -> None:
    torch.manual_seed(0)
    w = torch.randn(100)
    unrelated = torch.stack([radial_statistic(w, torch.randn(100)) for _ in range(400)])
    assert float(unrelated.mean()) == pytest.approx(1, abs=0.25)
    g = torch.randn(100)
    tangent = g - w * (w @ g) / (w @ w)
    assert float(radial_statistic(w, tangent)) < 1e-10
    assert float(radial_statistic(w, 1e-20 * g)) == pytest.approx(float(radial_statistic(w, g)))
    assert torch.isnan(radial_statistic(w, torch.zeros(100)))
