"""Tensors in an optimizer's state, and how they come to a batch and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..measure.sharding import is_sharded
from .members import Members

ANGLE_FACTOR = "angle_factor"
"""Key in ``optimizer.state[p]``: a 0-d float32 factor on p's angle from outside, if any."""


def buffer_beside(parameter: Tensor, dense: bool, loaded: Tensor | None) -> Tensor:
    """Return a buffer laid out as steps walk the parameter's memory.

    Args:
        parameter: The weight.
        dense: Whether its own memory is walked; else a contiguous copy's.
        loaded: The buffer that is there; None for zeros.
    """
    layout = torch.preserve_format if dense else torch.contiguous_format
    if loaded is None:
        return torch.zeros_like(parameter, memory_format=layout)
    if is_sharded(parameter) or loaded.ndim == 0:
        return loaded
    wanted = torch.empty_like(parameter, memory_format=layout)
    return loaded if loaded.stride() == wanted.stride() else wanted.copy_(loaded)


def per_unit(members: Members, states: Sequence[Mapping[str, Any]], name: str) -> Tensor:
    """Join what turning members keep per unit; 0 for the others. Float64, shape (units,)."""
    units = members.units
    kept = members.local([states[i][name] for i in members.turning])
    if len(kept) == len(units.counts):
        return torch.cat(kept).double()
    parts = list(torch.zeros(len(units), device=units.device).split(units.counts))
    for i, values in zip(members.turning, kept, strict=True):
        parts[i] = values
    return torch.cat(parts).double()


def keep_per_unit(
    members: Members, states: Sequence[Mapping[str, Any]], name: str, values: Tensor
) -> None:
    """Write what has one entry per unit back into the state of turning members."""
    parts = members.units.split(values)
    kept = members.local([states[i][name] for i in members.turning])
    torch._foreach_copy_(kept, [parts[i] for i in members.turning])


def on_device(table: Sequence[Sequence[Any]], device: torch.device) -> Tensor:
    """Put numbers on a device as float64, without waiting for it; some may be tensors there."""
    if any(isinstance(value, Tensor) for row in table for value in row):
        rows = [
            [torch.as_tensor(value, dtype=torch.float64).to(device) for value in row]
            for row in table
        ]
        return torch.stack([torch.stack(row) for row in rows])
    numbers = torch.tensor(table, dtype=torch.float64)
    if device.type == "cuda":
        return numbers.pin_memory().to(device, non_blocking=True)
    return numbers.to(device)
