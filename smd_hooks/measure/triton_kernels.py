"""The kernels of one pass over many tensors on a GPU; importing this needs Triton.

A program works on one tile (see :mod:`smd_hooks.measure.tiles`): some units of a tensor, or a
part of one, a few elements of each at a time. Arithmetic is in float64.
"""

# mypy: disable-error-code="no-untyped-def,import-untyped,import-not-found"
# ruff: noqa: SIM300 (arguments in capitals are constants of a compilation)

import torch
import triton
import triton.language as tl

DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
"""Triton's names of what tensors may hold."""


@triton.jit
def pointer(address, DTYPE: tl.constexpr):
    """Where elements begin; types spelt out, since Triton 3.0 wants them so."""
    place = address.to(tl.pointer_type(tl.float32))
    if DTYPE == tl.float16:
        place = address.to(tl.pointer_type(tl.float16))
    if DTYPE == tl.bfloat16:
        place = address.to(tl.pointer_type(tl.bfloat16))
    return place


@triton.jit
def add_parts(split, sums, WIDTH: tl.constexpr, PARTS: tl.constexpr):
    """Add up the parts of one long unit, always in the same order.

    Args:
        split: The unit, the first row of its parts and the row after the last, int64, 3 per
            such unit; a program takes one.
        sums: Float64, ``WIDTH`` per row.
        WIDTH: Sums per row, 8 at most.
        PARTS: Rows at a time.
    """
    one = split + tl.program_id(0).to(tl.int64) * 3
    last = tl.load(one + 2)
    column = tl.arange(0, 8)
    total = tl.zeros([8], tl.float64)
    for first in range(tl.load(one + 1).to(tl.int32), last.to(tl.int32), PARTS):
        row = first + tl.arange(0, PARTS)
        inside = (row < last)[:, None] & (column < WIDTH)[None, :]
        total += tl.sum(tl.load(sums + row[:, None] * WIDTH + column[None, :], inside, 0.0), 0)
    tl.store(sums + tl.load(one) * WIDTH + column, total, mask=column < WIDTH)


@triton.jit
def sum_steps(
    tiles,
    addresses,
    sums,
    DTYPE: tl.constexpr,
    UNITS: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    """Sum up the inner products of a step over each unit of one tile.

    Args:
        tiles: Of :data:`~smd_hooks.measure.tiles.COLUMNS`, int64; a program takes one.
        addresses: Of each tensor's weight before and after the step, gradient and momentum
            buffer (or 0), int64, 4 per tensor.
        sums: Float64, 6 per row, as :data:`~smd_hooks.measure.geometry.STEP_SUMS`.
        DTYPE: Of the tensors.
        UNITS: Units in a tile at most.
        ELEMENTS: Of each unit at a time.
    """
    tile = tiles + tl.program_id(0).to(tl.int64) * 6
    start = tl.load(tile + 3)
    length = tl.load(tile + 4).to(tl.int32)
    unit = tl.arange(0, UNITS)
    is_unit = unit < tl.load(tile + 2)
    place = addresses + tl.load(tile) * 4
    has_buffer = tl.load(place + 3) != 0
    w_at = pointer(tl.load(place), DTYPE) + start
    a_at = pointer(tl.load(place + 1), DTYPE) + start
    g_at = pointer(tl.load(place + 2), DTYPE) + start
    b_at = pointer(tl.load(place + 3), DTYPE) + start

    ww = tl.zeros([UNITS, ELEMENTS], tl.float64)
    wd = tl.zeros([UNITS, ELEMENTS], tl.float64)
    dd = tl.zeros([UNITS, ELEMENTS], tl.float64)
    gg = tl.zeros([UNITS, ELEMENTS], tl.float64)
    wg = tl.zeros([UNITS, ELEMENTS], tl.float64)
    bg = tl.zeros([UNITS, ELEMENTS], tl.float64)
    for first in range(0, length, ELEMENTS):
        element = first + tl.arange(0, ELEMENTS)
        at = unit[:, None] * length + element[None, :]
        inside = is_unit[:, None] & (element < length)[None, :]
        w = tl.load(w_at + at, mask=inside, other=0.0).to(tl.float64)
        d = tl.load(a_at + at, mask=inside, other=0.0).to(tl.float64) - w
        g = tl.load(g_at + at, mask=inside, other=0.0).to(tl.float64)
        b = tl.load(b_at + at, mask=inside & has_buffer, other=0.0).to(tl.float64)
        ww += w * w
        wd += w * d
        dd += d * d
        gg += g * g
        wg += w * g
        if has_buffer:  # else a broken gradient would make 0 · ∞ of it
            bg += b * g
    row = sums + (tl.load(tile + 5) + unit) * 6
    tl.store(row, tl.sum(ww, 1), mask=is_unit)
    tl.store(row + 1, tl.sum(wd, 1), mask=is_unit)
    tl.store(row + 2, tl.sum(dd, 1), mask=is_unit)
    tl.store(row + 3, tl.sum(gg, 1), mask=is_unit)
    tl.store(row + 4, tl.sum(wg, 1), mask=is_unit)
    tl.store(row + 5, tl.sum(bg, 1), mask=is_unit)
