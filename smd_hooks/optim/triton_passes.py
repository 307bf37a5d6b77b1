"""The two passes on a GPU: all tensors of a batch in a few launches, by Triton.

Importing this needs Triton; nothing else in the package does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import torch
from torch import Tensor

from .passes import Batch
from .sphere import SUMS
from .tiles import addresses, cut
from .triton_kernels import DTYPES, add_parts, move_tiles, sum_tiles
from .units import Units

SHAPES = ((1, 512), (8, 64), (64, 8))
"""Units and elements that a program works on at a time: few long ones, or many short ones."""
IDLE = 1.5
"""Lanes per element up to which a unit counts as long enough for a shape."""
PART = 16 * 512
"""Elements of a unit that one program works through; longer ones are shared out."""
REMEMBERED = 64
"""Tables that are kept on the device: gradients come to lie at the same few places."""


class TritonPasses:
    """The passes as Triton kernels: float32, float16 or bfloat16 on a GPU.

    Arithmetic is that of :class:`~smd_hooks.optim.passes.TorchPasses`, but that ``ADAM``
    takes its root in float32 (6e-8 of the direction). Nothing waits for the device, and no
    sum depends on the order in which programs run. Once addresses repeat, nothing is copied
    to the device either, so that steps can be captured in a CUDA graph.
    """

    def __init__(self) -> None:
        self._tables: dict[Hashable, Any] = {}
        self._captured: list[Any] = []
        self._latest: tuple[ref[Batch], _Plan] | None = None

    def direction_sums(self, batch: Batch, needed: bool = True) -> Tensor | None:
        """See :class:`~smd_hooks.optim.passes.Passes`."""
        plan = self._plan(batch)
        sums = batch.settings.new_empty(plan.work.rows if needed else 0, len(SUMS))
        decay = batch.settings if batch.decay is None else batch.decay
        with _on(batch.units.device):
            for tiles, units, elements in plan.work.tiles:
                sum_tiles[len(tiles),](
                    tiles,
                    plan.addresses,
                    batch.settings,
                    decay,
                    sums,
                    KIND=int(batch.direction),
                    DTYPE=DTYPES[batch.weights[0].dtype],
                    DECAYS=batch.decay is not None,
                    NEEDED=needed,
                    UNITS=units,
                    ELEMENTS=elements,
                    enable_fp_fusion=False,
                )
            if needed and len(plan.work.split):
                add_parts[len(plan.work.split),](plan.work.split, sums, PARTS=64)
        return sums[: len(batch.units)] if needed else None

    def move(self, batch: Batch, factors: Tensor) -> None:
        """See :class:`~smd_hooks.optim.passes.Passes`."""
        plan, factors = self._plan(batch), factors.contiguous()
        with _on(batch.units.device):
            for tiles, units, elements in plan.work.tiles:
                move_tiles[len(tiles),](
                    tiles,
                    plan.addresses,
                    batch.settings,
                    factors,
                    KIND=int(batch.direction),
                    DTYPE=DTYPES[batch.weights[0].dtype],
                    UNITS=units,
                    ELEMENTS=elements,
                    enable_fp_fusion=False,
                )

    def _plan(self, batch: Batch) -> _Plan:
        if self._latest is None or self._latest[0]() is not batch:
            units, table = batch.units, addresses(batch)
            keys = (units.counts, units.lengths), table.tobytes()
            work = self._kept(units.device, keys[0], lambda: _work(units))
            placed = self._kept(units.device, keys[1], lambda: _upload(units.device, table))
            self._latest = (ref(batch), _Plan(work, placed.there))
        return self._latest[1]

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


class _Uploaded(NamedTuple):
    """A table on the device, with the memory that it is copied from without waiting."""

    there: Tensor
    here: Tensor


@dataclass(frozen=True)
class _Work:
    """Tiles of each shape (with its units and elements) and units in parts, on the device."""

    tiles: list[tuple[Tensor, int, int]]
    split: Tensor
    rows: int
    uploaded: list[_Uploaded]


class _Plan(NamedTuple):
    work: _Work
    addresses: Tensor


def _upload(device: torch.device, table: np.ndarray) -> _Uploaded:
    here = torch.from_numpy(table)
    if device.type == "cuda":
        here = here.pin_memory()
    return _Uploaded(here.to(device, non_blocking=True), here)


def _work(units: Units) -> _Work:
    shapes = [_shape_of(length) for length in units.lengths]
    uploaded, tiles = [], []
    for shape in SHAPES:
        whole = cut(units.counts, units.lengths, PART, most_units=shape[0])
        mine = np.array([own == shape for own in shapes])[whole.table[:, 0]]
        if mine.any():
            uploaded.append(_upload(units.device, whole.table[mine]))
            tiles.append((uploaded[-1].there, *shape))
    uploaded.append(_upload(units.device, whole.split))
    return _Work(tiles, uploaded[-1].there, whole.rows, uploaded)


def _shape_of(length: int) -> tuple[int, int]:
    """Return the widest shape that few of whose lanes idle on units of this length."""
    for shape in SHAPES:
        if -(-length // shape[1]) * shape[1] <= IDLE * length:
            return shape
    return SHAPES[-1]


def _on(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
