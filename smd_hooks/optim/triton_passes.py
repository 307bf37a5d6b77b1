"""The two passes on a GPU: all tensors of a batch in a few launches, by Triton.

Importing this needs Triton; nothing else in the package does.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import ref

from torch import Tensor

from ..measure.device_tiles import DeviceTables, Work, on
from ..measure.triton_kernels import DTYPES, add_parts
from .passes import Batch
from .sphere import SUMS
from .triton_kernels import move_tiles, sum_tiles


class TritonPasses:
    """The passes as Triton kernels: float32, float16 or bfloat16 on a GPU.

    Arithmetic is that of :class:`~smd_hooks.optim.passes.TorchPasses`, but that ``ADAM``
    takes its root in float32 (6e-8 of the direction). Nothing waits for the device, and no
    sum depends on the order in which programs run. Once addresses repeat, nothing is copied
    to the device either, so that steps can be captured in a CUDA graph.
    """

    def __init__(self) -> None:
        self._tables = DeviceTables()
        self._latest: tuple[ref[Batch], _Plan] | None = None

    def direction_sums(self, batch: Batch, needed: bool = True) -> Tensor | None:
        """See :class:`~smd_hooks.optim.passes.Passes`."""
        plan = self._plan(batch)
        sums = batch.settings.new_empty(plan.work.rows if needed else 0, len(SUMS))
        decay = batch.settings if batch.decay is None else batch.decay
        with on(batch.units.device):
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
                add_parts[len(plan.work.split),](plan.work.split, sums, WIDTH=len(SUMS), PARTS=64)
        return sums[: len(batch.units)] if needed else None

    def move(self, batch: Batch, factors: Tensor) -> None:
        """See :class:`~smd_hooks.optim.passes.Passes`."""
        plan, factors = self._plan(batch), factors.contiguous()
        with on(batch.units.device):
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
            units = batch.units
            work = self._tables.work(units.counts, units.lengths, units.device)
            placed = self._tables.addresses(batch.addresses(), units.device)
            self._latest = (ref(batch), _Plan(work, placed))
        return self._latest[1]


class _Plan(NamedTuple):
    work: Work
    addresses: Tensor
