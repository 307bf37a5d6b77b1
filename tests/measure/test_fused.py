"""The pass in C equals the reference, and its absence costs only time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_hooks.measure import c_sums
from smd_hooks.measure.c_sums import Vectors
from smd_hooks.measure.fused import fused_step_sums
from smd_hooks.measure.geometry import step_sums


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    c_sums.load.cache_clear()
    c_sums.library.cache_clear()
    yield
    c_sums.load.cache_clear()
    c_sums.library.cache_clear()


def reference(steps: list[Vectors]) -> Tensor:
    return torch.cat([step_sums(*vectors).reshape(-1, 6) for vectors in steps])


def steps_of(shapes: list[tuple[int, ...]], seed: int, dtype: torch.dtype) -> list[Vectors]:
    generator = torch.Generator().manual_seed(seed)
    steps: list[Vectors] = []
    for i, shape in enumerate(shapes):
        w, d, g, b = torch.randn(4, *shape, generator=generator).to(dtype)
        steps.append((w, w + 1e-4 * d, g, None if i % 3 == 2 else b))
    return steps


def test_there_is_a_compiler_here() -> None:
    """Else the tests below would hold the reference against itself."""
    assert c_sums.load() is not None


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.one_of(st.tuples(st.integers(0, 300)), st.tuples(st.integers(1, 5), st.integers(0, 70))),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 1000),
)
def test_the_pass_in_c_equals_the_reference(shapes: list[tuple[int, ...]], seed: int) -> None:
    steps = steps_of(shapes, seed, torch.float32)
    got, wanted = fused_step_sums(steps), reference(steps)
    assert got.dtype == torch.float64
    assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-12 * float(wanted.abs().max() + 1))


def test_large_weights_and_broken_gradients() -> None:
    steps = steps_of([(2_400_000,), (1_000, 2_400)], 0, torch.float32)
    scale = torch.linalg.vector_norm(reference(steps), dim=-1, keepdim=True)
    assert ((fused_step_sums(steps) - reference(steps)).abs() <= 1e-12 * scale).all()
    steps[0][2][7] = torch.nan
    steps[1][2][3, 5] = torch.inf
    got, wanted = fused_step_sums(steps), reference(steps)
    assert torch.equal(torch.isfinite(got), torch.isfinite(wanted))
    assert not torch.isfinite(got).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_take_the_reference(dtype: torch.dtype) -> None:
    steps = steps_of([(30,), (2, 5)], 0, dtype)
    assert torch.equal(fused_step_sums(steps), reference(steps))


def test_tiny_numbers_are_not_rounded_to_zero_afterwards() -> None:
    """-ffast-math in a shared library would do that to the whole process."""
    assert c_sums.load() is not None
    assert float(torch.tensor(1e-40) * 1.0) != 0


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("compiler", ["/bin/false", "/nowhere/cc"])
def test_without_a_compiler_the_reference_stays(
    monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    assert c_sums.load() is None
    steps = steps_of([(30,), (2, 5)], 0, torch.float32)
    assert torch.equal(fused_step_sums(steps), reference(steps))


def test_nothing_measured_is_nothing() -> None:
    assert fused_step_sums([]).shape == (0, 6)
