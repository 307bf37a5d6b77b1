"""All of a step's tensors in one launch or a few on a GPU, by Triton.

Importing this needs Triton; nothing else in the package does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .device_tiles import DeviceTables, on
from .geometry import STEP_SUMS
from .tiles import addresses
from .triton_kernels import DTYPES, add_parts, sum_steps


class TritonSums:
    """:func:`~smd_hooks.measure.geometry.step_sums` of many weights at a time.

    Nothing waits for the device, and no sum depends on the order in which programs run.
    """

    def __init__(self) -> None:
        self._tables = DeviceTables()

    def __call__(self, steps: Sequence[tuple[Tensor, Tensor, Tensor, Tensor | None]]) -> Tensor:
        """Reduce one step.

        Args:
            steps: For each weight its vectors, contiguous, all on one device and of one dtype
                that ``DTYPES`` has.

        Returns:
            Float64 of shape (rows of all weights, 6).
        """
        shapes = [before.shape for before, *_ in steps]
        counts = [shape[0] if len(shape) > 1 else 1 for shape in shapes]
        lengths = [shape[-1] for shape in shapes]
        first = steps[0][0]
        work = self._tables.work(counts, lengths, first.device)
        places = self._tables.addresses(addresses(list(zip(*steps, strict=True))), first.device)
        sums = torch.empty(work.rows, len(STEP_SUMS), dtype=torch.float64, device=first.device)
        with on(first.device):
            for tiles, units, elements in work.tiles:
                sum_steps[len(tiles),](
                    tiles,
                    places,
                    sums,
                    DTYPE=DTYPES[first.dtype],
                    UNITS=units,
                    ELEMENTS=elements,
                    enable_fp_fusion=False,
                )
            if len(work.split):
                add_parts[len(work.split),](work.split, sums, WIDTH=len(STEP_SUMS), PARTS=64)
        return sums[: sum(counts)]
