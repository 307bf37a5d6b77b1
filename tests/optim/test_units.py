"""How weights lie in memory, and which elements make a unit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_hooks.optim.units import Units, in_layout_of, is_dense
from tests.optim.cases import LAYOUTS, laid_out

SHAPES = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


def numbered(shape: tuple[int, ...], layout: str) -> Tensor:
    count = torch.Size(shape).numel()
    return laid_out(torch.arange(count, dtype=torch.float32).reshape(shape), layout).detach()


@given(shape=SHAPES, layout=LAYOUTS, per_row=st.booleans())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_rows_of_dense_tensors_hold_their_own_elements(
    shape: tuple[int, ...], layout: str, per_row: bool
) -> None:
    tensor = numbered(shape, layout)
    per_row = per_row and tensor.ndim > 0
    if not is_dense(tensor, per_row):
        return
    count = shape[0] if per_row else 1
    units = Units((count,), (tensor.numel() // count,), tensor.device)
    (rows,) = units.rows([tensor])
    wanted = tensor.flatten(1) if per_row and tensor.ndim > 1 else tensor.reshape(count, -1)
    assert torch.equal(rows.sort(1).values, wanted.sort(1).values)
    rows.zero_()
    assert not tensor.any()


@pytest.mark.parametrize(
    ("layout", "whole", "by_row"),
    [
        ("contiguous", True, True),
        ("channels_last", True, True),
        ("transposed", True, False),
        ("gapped", False, False),
    ],
)
def test_which_layouts_can_be_walked(layout: str, whole: bool, by_row: bool) -> None:
    tensor = numbered((3, 4, 2, 5), layout)
    assert is_dense(tensor, per_row=False) is whole
    assert is_dense(tensor, per_row=True) is by_row


def test_tensors_that_share_memory_with_themselves_cannot_be_walked() -> None:
    assert not is_dense(torch.zeros(1).expand(4, 3), per_row=False)
    assert not is_dense(torch.zeros(4, 1).expand(4, 3), per_row=True)


@given(shape=SHAPES, layout=LAYOUTS, other=LAYOUTS)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_gradients_take_the_layout_of_their_weight(
    shape: tuple[int, ...], layout: str, other: str
) -> None:
    weight = numbered(shape, layout)
    if not is_dense(weight, per_row=False):
        weight = weight.contiguous()
    gradient = numbered(shape, other)
    seen = in_layout_of(gradient, weight)
    assert torch.equal(seen, gradient)
    one = Units((1,), (weight.numel(),), weight.device)
    assert torch.equal(*(one.rows([tensor])[0] for tensor in (seen, weight)))
    assert in_layout_of(weight, weight) is weight


def test_gradients_take_the_dtype_of_their_weight() -> None:
    weight = torch.zeros(3, 4, dtype=torch.bfloat16)
    assert in_layout_of(torch.ones(3, 4), weight).dtype == torch.bfloat16


def test_entries_of_tensors_and_of_units() -> None:
    units = Units((2, 0, 3), (4, 5, 1), torch.device("cpu"))
    assert len(units) == 5
    assert units.tensor_of.tolist() == [0, 0, 2, 2, 2]
    assert units.spread(torch.tensor([7, 8, 9])).tolist() == [7, 7, 9, 9, 9]
    assert [len(part) for part in units.split(torch.zeros(5))] == [2, 0, 3]
