"""What weights of low precision still let one see."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ROUNDING = 0.2127
"""Norm of all elements' rounding errors over eps · ‖w‖, for Gaussian weights (a test measures
it)."""


def rounding_angle(dtype: torch.dtype) -> float:
    """Angle in radians that rounding alone turns a weight by, if it touches every element.

    >>> f"{rounding_angle(torch.bfloat16):.1e}"
    '1.7e-03'
    """
    return ROUNDING * torch.finfo(dtype).eps


def precision_warning(names: Sequence[str], weights: Sequence[Tensor]) -> str | None:
    """Say what cannot be resolved, or return None where fp32 weights are all there is."""
    low = [(n, w) for n, w in zip(names, weights, strict=True) if torch.finfo(w.dtype).bits < 32]
    if not low:
        return None
    name, weight = low[0]
    kind = str(weight.dtype).removeprefix("torch.")
    return (
        f"{len(low)} of {len(names)} weights ({name}, …) are {kind}: rounding alone turns them by "
        f"{rounding_angle(weight.dtype):.1e} radians, and smaller updates are lost in part or "
        "whole; keep the weights in float32 (autocast does) to measure smaller angles"
    )
