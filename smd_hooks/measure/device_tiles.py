"""Tiles on a GPU: cut once, brought over once, and there for every launch that repeats."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .tiles import cut

SHAPES = ((1, 512), (8, 64), (64, 8))
"""Units and elements that a program works on at a time: few long ones, or many short ones."""
IDLE = 1.5
"""Lanes per element up to which a unit counts as long enough for a shape."""
PART = 16 * 512
"""Elements of a unit that one program works through; longer ones are shared out."""
REMEMBERED = 64
"""Tables that are kept on the device: gradients come to lie at the same few places."""


class Uploaded(NamedTuple):
    """A table on the device, with the memory that it is copied from without waiting."""

    there: Tensor
    here: Tensor


@dataclass(frozen=True)
class Work:
    """What a launch over many tensors goes by, on the device.

    Attributes:
        tiles: Of each shape that has any: the table, its units and its elements.
        split: Units in parts, as :class:`~smd_hooks.measure.tiles.Tiles` has them.
        rows: Rows of sums.
        uploaded: What all that was copied from.
    """

    tiles: list[tuple[Tensor, int, int]]
    split: Tensor
    rows: int
    uploaded: list[Uploaded]


class DeviceTables:
    """Remembers what was brought to the device; for CUDA graphs as long as one may be replayed."""

    def __init__(self) -> None:
        self._tables: dict[Hashable, Any] = {}
        self._captured: list[Any] = []

    def work(self, counts: Sequence[int], lengths: Sequence[int], device: torch.device) -> Work:
        """Return the tiles of tensors with so many units of such lengths."""
        key = (tuple(counts), tuple(lengths))
        work: Work = self._kept(device, key, lambda: _work(counts, lengths, device))
        return work

    def addresses(self, table: np.ndarray, device: torch.device) -> Tensor:
        """Return a table of addresses, on the device."""
        uploaded: Uploaded = self._kept(device, table.tobytes(), lambda: _upload(device, table))
        return uploaded.there

    def _kept(self, device: torch.device, key: Hashable, make: Callable[[], Any]) -> Any:
        """Make something once; for a graph keep it as long as the graph may be replayed."""
        found = self._tables.get((device, key))
        is_captured = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        if found is None:
            found = make()
            if not is_captured:  # else it is filled whenever the graph runs, and not before
                if len(self._tables) >= REMEMBERED:
                    self._tables.clear()
                self._tables[device, key] = found
        if is_captured:
            self._captured.append(found)
        return found


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Make a device the one that kernels are launched on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _upload(device: torch.device, table: np.ndarray) -> Uploaded:
    here = torch.from_numpy(table)
    if device.type == "cuda":
        here = here.pin_memory()
    return Uploaded(here.to(device, non_blocking=True), here)


def _work(counts: Sequence[int], lengths: Sequence[int], device: torch.device) -> Work:
    shapes = [_shape_of(length) for length in lengths]
    uploaded, tiles = [], []
    for shape in SHAPES:
        whole = cut(counts, lengths, PART, most_units=shape[0])
        mine = np.array([own == shape for own in shapes])[whole.table[:, 0]]
        if mine.any():
            uploaded.append(_upload(device, whole.table[mine]))
            tiles.append((uploaded[-1].there, *shape))
    uploaded.append(_upload(device, whole.split))
    return Work(tiles, uploaded[-1].there, whole.rows, uploaded)


def _shape_of(length: int) -> tuple[int, int]:
    """Return the widest shape that few of whose lanes idle on units of this length."""
    for shape in SHAPES:
        if -(-length // shape[1]) * shape[1] <= IDLE * length:
            return shape
    return SHAPES[-1]
