"""One fused pass over a step's tensors, where it is worth its compilation."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from .geometry import step_sums

WORTH_COMPILING = 5_000_000
"""Elements measured per step from which a compiled pass earns its seconds of compilation."""
OFTEN = 10
"""Interval below which a step is measured often enough for it."""


@cache
def _compiled() -> object:
    return torch.compile(step_sums, dynamic=True)


class StepSums:
    """:func:`~smd_hooks.measure.geometry.step_sums`, compiled where that pays.

    The compiled form reads each tensor once; the reference makes a float64 copy of each.
    Both sum in float64. Without a working compiler the reference stays, and a warning
    says so once.

    Args:
        elements: Elements that are measured in one step.
        interval: Steps between measured ones.
    """

    def __init__(self, elements: int, interval: int) -> None:
        self.is_compiled = elements >= WORTH_COMPILING and interval < OFTEN

    def __call__(
        self, before: Tensor, after: Tensor, gradient: Tensor, buffer: Tensor | None
    ) -> Tensor:
        """Return the sums of one step; see :func:`~smd_hooks.measure.geometry.step_sums`."""
        if self.is_compiled:
            try:
                return _compiled()(before, after, gradient, buffer)  # type: ignore[operator]
            except Exception as error:  # compilers fail in many ways; measuring must not
                self.is_compiled = False
                reason = str(error).strip().splitlines() or [type(error).__name__]
                warnings.warn(
                    f"StepProbe: measuring without a compiled pass, slower ({reason[0]})",
                    stacklevel=2,
                )
        return step_sums(before, after, gradient, buffer)
