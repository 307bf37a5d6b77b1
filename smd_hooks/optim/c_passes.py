"""The two passes over fp32 tensors on a CPU, in C."""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..measure.compiled_c import PIECE, address, compiled, share_out
from ..measure.tiles import COLUMNS, Tiles, cut
from .passes import Batch
from .sphere import SUMS

SOURCE = Path(__file__).with_name("passes.c")


class CPasses:
    """The passes in C: float32 on the CPU, over all tensors at a time.

    Momenta are those of :class:`~smd_hooks.optim.passes.TorchPasses` bit by bit, signs are
    the same, sums agree to the rounding of float64. Nothing depends on the number of threads.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        """Wrap what :func:`load` compiled."""
        self._library = library

    def direction_sums(self, batch: Batch, needed: bool = True) -> Tensor | None:
        """See :class:`~smd_hooks.optim.passes.Passes`."""
        tiles = _tiles(batch.units.counts, batch.units.lengths)
        decay = None if batch.decay is None else np.ascontiguousarray(batch.decay.numpy())
        sums = np.empty((tiles.rows, len(SUMS))) if needed else None
        self._call("direction_sums", batch, tiles, decay, sums)
        if sums is None:
            return None
        if len(tiles.split):
            # in the order of the parts, whoever did them
            units, first, _ = tiles.split.T
            sums[units] = np.add.reduceat(sums, first)
        return torch.from_numpy(sums[: len(batch.units)])

    def move(self, batch: Batch, factors: Tensor) -> None:
        """See :class:`~smd_hooks.optim.passes.Passes`."""
        tiles = _tiles(batch.units.counts, batch.units.lengths)
        self._call("move", batch, tiles, np.ascontiguousarray(factors.numpy()))

    def _call(self, name: str, batch: Batch, tiles: Tiles, *arrays: np.ndarray | None) -> None:
        function = getattr(self._library, name)
        tensors = batch.addresses()
        settings = np.ascontiguousarray(batch.settings.numpy())
        fixed = (tensors, settings, *arrays)
        pointers = [None if array is None else address(array) for array in fixed]
        kind = ctypes.c_int(batch.direction)

        def work(share: slice) -> None:
            table = tiles.table[share]
            function(kind, ctypes.c_int64(len(table)), address(table), *pointers)

        units, length = COLUMNS.index("units"), COLUMNS.index("length")
        share_out(work, tiles.table[:, units] * tiles.table[:, length])


@lru_cache(maxsize=32)
def _tiles(counts: tuple[int, ...], lengths: tuple[int, ...]) -> Tiles:
    return cut(counts, lengths, elements=PIECE, most_units=PIECE)


@cache
def load() -> CPasses | None:
    """Compile the passes; None where there is no working compiler."""
    library = compiled(SOURCE)
    if library is None:
        return None
    for function in (library.direction_sums, library.move):
        function.restype = None
    return CPasses(library)
