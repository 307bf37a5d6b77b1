"""The passes in C equal the readable ones, bit by bit, on any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_hooks.measure.compiled_c import PIECE
from smd_hooks.optim import c_passes
from smd_hooks.optim.passes import Batch, Direction, TorchPasses

from .batches import DIRECTIONS, SHAPES, batch_of, magnitudes, stepped

LONG = [(1, 2 * PIECE + 5), (3, 27), (2, PIECE + 1), (700, 1), (1, PIECE), (5, PIECE // 4)]
"""Units over a piece, of a piece, and many to a piece."""


@pytest.fixture(scope="module")
def in_c() -> c_passes.CPasses:
    loaded = c_passes.load()
    assert loaded is not None, "no C compiler: nothing below would be tested"
    return loaded


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def assert_same(in_c: c_passes.CPasses, batch: Batch, needed: bool = True) -> None:
    weights, buffers, sums = stepped(in_c, batch, needed)
    wanted_weights, wanted_buffers, wanted_sums = stepped(TorchPasses(), batch, needed)
    for got, wanted in zip(weights + buffers, wanted_weights + wanted_buffers, strict=True):
        assert torch.equal(got.nan_to_num(9.25), wanted.nan_to_num(9.25))
    assert (sums is None) == (not needed)
    if sums is not None and wanted_sums is not None:
        assert sums.dtype == torch.float64
        assert sums.shape == wanted_sums.shape
        assert ((sums - wanted_sums).abs() <= 1e-12 * magnitudes(batch, wanted_sums)).all()


@settings(deadline=None, max_examples=60)
@given(DIRECTIONS, SHAPES, st.integers(0, 1000), st.booleans(), st.booleans())
def test_the_passes_in_c_equal_the_readable_ones(
    in_c: c_passes.CPasses,
    direction: Direction,
    shapes: list[tuple[int, int]],
    seed: int,
    decays: bool,
    needed: bool,
) -> None:
    assert_same(in_c, batch_of(direction, shapes, seed, decays), needed)


@pytest.mark.parametrize("direction", list(Direction))
def test_long_units_and_many_short_ones(in_c: c_passes.CPasses, direction: Direction) -> None:
    assert_same(in_c, batch_of(direction, LONG, decays=True))


@pytest.mark.parametrize("direction", list(Direction))
def test_nothing_depends_on_threads(
    in_c: c_passes.CPasses, direction: Direction, threads: None
) -> None:
    batch = batch_of(direction, LONG, decays=True)
    results = []
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        weights, buffers, sums = stepped(in_c, batch)
        assert sums is not None
        results.append([*weights, *buffers, sums])
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            assert torch.equal(one, other)


def test_signs_of_blends_that_cancel(in_c: c_passes.CPasses) -> None:
    """A fused multiply-add would leave one product's rounding error, and take its sign."""
    third = 1 / 3
    batch = batch_of(Direction.SIGN, [(1, 4096)])
    batch.settings[0, :3] = torch.tensor([1.0, third, -third], dtype=torch.float64)
    batch = replace(batch, buffers=[[batch.gradients[0].clone()]])
    _, _, sums = stepped(in_c, batch)
    assert sums is not None
    assert sums[0, 2] == 0
    numbers = batch.gradients[0].flatten().tolist()
    errors = [Fraction(third) * Fraction(g) - Fraction(third * g) for g in numbers]
    assert sum(error != 0 for error in errors) > 2000


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_broken_gradients_break_the_same_elements(
    in_c: c_passes.CPasses, direction: Direction, broken: float
) -> None:
    batch = batch_of(direction, [(3, 50)])
    batch.settings[:, 2] = 0.1
    batch.gradients[0][1, 7] = broken
    weights, buffers, _ = stepped(in_c, batch)
    wanted_weights, wanted_buffers, _ = stepped(TorchPasses(), batch)
    for got, wanted in zip(weights + buffers, wanted_weights + wanted_buffers, strict=True):
        assert torch.equal(got.nan_to_num(9.25), wanted.nan_to_num(9.25))
    assert not buffers[0].isfinite().all()


def test_the_smallest_and_the_largest_numbers(in_c: c_passes.CPasses) -> None:
    for direction in Direction:
        batch = batch_of(direction, [(4, 60)])
        scales = torch.logspace(-45, 30, 60)
        for tensors in (batch.gradients, batch.buffers[0]):
            tensors[0].mul_(scales)
        assert_same(in_c, batch)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    c_passes.load.cache_clear()
    yield
    c_passes.load.cache_clear()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("compiler", ["/bin/false", "/nowhere/cc"])
def test_without_a_compiler_there_is_no_c_form(
    monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    assert c_passes.load() is None
