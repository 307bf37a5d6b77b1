"""The pass in C equals the reference, and its absence costs only time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_hooks.measure import fused
from smd_hooks.measure.fused import Vectors, fused_step_sums
from smd_hooks.measure.geometry import step_sums


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    fused.load.cache_clear()
    fused.library.cache_clear()
    yield
    fused.load.cache_clear()
    fused.library.cache_clear()


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
    assert fused.load() is not None


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
    assert fused.load() is not None
    assert float(torch.tensor(1e-40) * 1.0) != 0


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("compiler", ["/bin/false", "/nowhere/cc"])
def test_without_a_compiler_the_reference_stays(
    monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    assert fused.load() is None
    steps = steps_of([(30,), (2, 5)], 0, torch.float32)
    assert torch.equal(fused_step_sums(steps), reference(steps))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("large", [False, True])
def test_copies_are_equal(
    layout: torch.memory_format, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they go past the caches or not; where they lie does not matter."""
    monkeypatch.setattr(fused, "PAST_CACHES", 0 if large else 1 << 30)
    monkeypatch.setattr(fused, "PIECE", 1000)
    together = torch.randn(3_000)
    originals = [
        torch.randn(70, 5, 3, 3).to(memory_format=layout),
        together[1:2_500],  # at no multiple of 64 bytes
        torch.randn(0),
        torch.randn(1),
    ]
    copies = [torch.full_like(t, torch.nan) for t in originals[:1]]
    copies += [torch.full((2_520,), torch.nan)[9:2_508], torch.empty(0), torch.zeros(1)]
    beyond = copies[1]._base
    assert beyond is not None
    fused.copy_all(copies, originals)
    for copy, original in zip(copies, originals, strict=True):
        assert torch.equal(copy, original)
    assert beyond[:9].isnan().all()
    assert beyond[2_508:].isnan().all()


@pytest.mark.parametrize("originals", [torch.randn(6, 4).T, torch.randn(4, 6).double()])
def test_what_lies_otherwise_is_copied_by_torch(
    originals: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "PAST_CACHES", 0)
    monkeypatch.setattr(fused, "_over_pieces", None)
    copy = torch.zeros(4, 6)
    fused.copy_all([copy], [originals])
    assert torch.equal(copy, originals.float())


def test_nothing_measured_is_nothing() -> None:
    assert fused_step_sums([]).shape == (0, 6)
