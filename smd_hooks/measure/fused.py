"""All of a step's tensors in one pass: in C on the CPU, compiled by torch on a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiled_c import PIECE, address, compiled, share_out
from .geometry import STEP_SUMS, step_sums

SOURCE = Path(__file__).with_name("step_sums.c")
WORTH_COMPILING = 5_000_000
"""Elements per measured step from which torch's compiler earns its seconds, on a GPU."""
FLOAT = 4
"""Bytes of the elements that the C form reads."""

Vectors = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Weight before and after a step, gradient, and momentum buffer after it."""


def fused_step_sums(steps: Sequence[Vectors], often: bool = True) -> Tensor:
    """Reduce one step of many weights; see :func:`~smd_hooks.measure.geometry.step_sums`.

    Args:
        steps: For each weight its vectors, each of shape (elements,) or (rows, elements).
        often: Whether this is asked at nearly every step, so that compiling pays.

    Returns:
        Float64 of shape (rows of all weights, 6), on the first weight's device. Nothing is
        read back from it.
    """
    if not steps:
        return torch.empty(0, len(STEP_SUMS), dtype=torch.float64)
    device = steps[0][0].device
    if all(_is_for_c(vectors) for vectors in steps):
        in_c = load()
        if in_c is not None:
            return in_c(steps)
    reduce = step_sums
    if often and device.type == "cuda" and sum(v[0].numel() for v in steps) >= WORTH_COMPILING:
        reduce = _compiled()
    rows = [reduce(*vectors).reshape(-1, len(STEP_SUMS)) for vectors in steps]
    return torch.cat([row.to(device, non_blocking=True) for row in rows])


def _is_for_c(vectors: Vectors) -> bool:
    return all(
        t is None or (t.dtype is torch.float32 and t.device.type == "cpu" and t.is_contiguous())
        for t in vectors
    )


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(step_sums, dynamic=True)


@cache
def load() -> Callable[[Sequence[Vectors]], Tensor] | None:
    """Compile and load the C form; None where there is no working compiler."""
    library = compiled(SOURCE)
    if library is None:
        return None
    function = library.step_sums
    function.restype = None
    return lambda steps: _call(function, steps)


def _call(function: Any, steps: Sequence[Vectors]) -> Tensor:
    """Cut the tensors into pieces, share them out over torch's number of threads, add up."""
    shapes = [vectors[0].shape for vectors in steps]
    rows = np.array([shape[0] if len(shape) > 1 else 1 for shape in shapes])
    lengths = np.array([shape[-1] for shape in shapes]).repeat(rows)
    pointers = np.array(
        [[0 if t is None else t.data_ptr() for t in vectors] for vectors in steps], np.uintp
    ).repeat(rows, 0)
    row_in_tensor = np.arange(len(lengths)) - (rows.cumsum() - rows).repeat(rows)
    pieces = np.maximum(1, -(-lengths // PIECE))
    first = pieces.cumsum() - pieces
    piece_in_row = np.arange(pieces.sum()) - first.repeat(pieces)
    start = (row_in_tensor * lengths).repeat(pieces) + piece_in_row * PIECE
    pointers = pointers.repeat(pieces, 0)
    pointers += (pointers != 0) * (start[:, None] * FLOAT).astype(np.uintp)
    counts = np.minimum(lengths.repeat(pieces) - piece_in_row * PIECE, PIECE).astype(ctypes.c_long)
    out = np.empty((len(counts), len(STEP_SUMS)))

    def work(share: slice) -> None:
        arrays = (pointers[share], counts[share], out[share])
        function(ctypes.c_long(len(arrays[1])), *map(address, arrays))

    share_out(work, counts)
    # in the order of the pieces, whoever did them: the sums do not depend on threads
    return torch.from_numpy(np.add.reduceat(out, first))
