"""All of a step's tensors in one pass on a CPU, in C, and the copies before it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .compiled_c import PIECE, address, compiled, share_out
from .geometry import STEP_SUMS

SOURCE = Path(__file__).with_name("step_sums.c")
FLOAT = 4
"""Bytes of the elements that are read."""
PAST_CACHES = 1 << 23
"""Elements from which copies would push out of the caches what the step needs: 32 MiB."""

Vectors = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Weight before and after a step, gradient, and momentum buffer after it."""
Reduce = Callable[[Sequence[Vectors]], Tensor]
"""From one step of many weights to float64 of shape (rows of all weights, 6)."""


def is_for(steps: Sequence[Vectors]) -> bool:
    """Whether vectors are such as the form in C reads."""
    return all(
        t is None or (t.dtype is torch.float32 and t.is_cpu and t.is_contiguous())
        for vectors in steps
        for t in vectors
    )


@cache
def load() -> Reduce | None:
    """Return what reduces one step of many weights; None where there is no working compiler."""
    found = library()
    if found is None:
        return None
    function = found.step_sums
    function.restype = None
    return lambda steps: _sums_in_c(function, steps)


@cache
def library() -> ctypes.CDLL | None:
    """Compile and load the functions in C; None where there is no working compiler."""
    return compiled(SOURCE)


def copy_all(copies: Sequence[Tensor], originals: Sequence[Tensor]) -> None:
    """Copy tensors into others of their shape, large ones on a CPU past its caches.

    Args:
        copies: Where to.
        originals: Where from, one for each.
    """
    elements = sum(t.numel() for t in originals)
    found = library() if elements >= PAST_CACHES else None
    pairs = list(zip(originals, copies, strict=True))
    if found is None or not all(_lie_alike(*pair) for pair in pairs):
        torch._foreach_copy_(list(copies), list(originals))
        return
    lengths = tuple(t.numel() for t in originals)
    _over_pieces(found.copy, pairs, (1,) * len(pairs), lengths, None)


def _lie_alike(a: Tensor, b: Tensor) -> bool:
    """Whether both fill one stretch of memory, element by element alike."""
    dense = a.is_contiguous() or (
        a.ndim == 4 and a.is_contiguous(memory_format=torch.channels_last)
    )
    of_c = a.dtype is b.dtype is torch.float32 and a.is_cpu and b.is_cpu
    return of_c and dense and a.stride() == b.stride()


def _sums_in_c(function: Any, steps: Sequence[Vectors]) -> Tensor:
    shapes = [vectors[0].shape for vectors in steps]
    counts = tuple(shape[0] if len(shape) > 1 else 1 for shape in shapes)
    lengths = tuple(shape[-1] for shape in shapes)
    out = _over_pieces(function, steps, counts, lengths, len(STEP_SUMS))
    # in the order of the pieces, whoever did them: the sums do not depend on threads
    return torch.from_numpy(np.add.reduceat(out, _pieces(counts, lengths).first))


def _over_pieces(
    function: Any,
    tensors: Sequence[Sequence[Tensor | None]],
    counts: tuple[int, ...],
    lengths: tuple[int, ...],
    columns: int | None,
) -> np.ndarray:
    """Call a function of the library on all pieces, shared out over torch's number of threads.

    Args:
        function: Takes the number of its pieces, pointers and lengths, and sums if it makes any.
        tensors: Those that a row of pointers is about.
        counts: Rows of each.
        lengths: Elements of a row.
        columns: Sums of a piece; None for none.

    Returns:
        Shape (pieces, columns).
    """
    pieces = _pieces(counts, lengths)
    places = (0 if t is None else t.data_ptr() for row in tensors for t in row)
    width = len(tensors[0])
    table = np.fromiter(places, np.uintp, len(tensors) * width).reshape(-1, width)
    pointers = table[pieces.tensor]
    pointers += (pointers != 0) * pieces.offset[:, None]
    out = np.empty((len(pieces.length), columns or 0))

    def work(share: slice) -> None:
        arrays = [pointers[share], pieces.length[share], *([out[share]] if columns else [])]
        function(ctypes.c_long(len(arrays[1])), *map(address, arrays))

    share_out(work, pieces.length)
    return out


class _Pieces(NamedTuple):
    """Tensors cut up: for each piece its tensor, its offset in bytes and its length.

    ``first`` has the first piece of each row.
    """

    tensor: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    first: np.ndarray


@lru_cache(maxsize=16)
def _pieces(counts: tuple[int, ...], lengths: tuple[int, ...]) -> _Pieces:
    rows, of_row = np.array(counts, int), np.array(lengths, int).repeat(counts)
    pieces = np.maximum(1, -(-of_row // PIECE))
    first = pieces.cumsum() - pieces
    within = (np.arange(pieces.sum()) - first.repeat(pieces)) * PIECE
    row_in_tensor = np.arange(len(of_row)) - (rows.cumsum() - rows).repeat(rows)
    offset = ((row_in_tensor * of_row).repeat(pieces) + within) * FLOAT
    length = np.minimum(of_row.repeat(pieces) - within, PIECE).astype(ctypes.c_long)
    tensor = np.arange(len(rows)).repeat(rows).repeat(pieces)
    return _Pieces(tensor, offset.astype(np.uintp), length, first)
