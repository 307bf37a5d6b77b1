"""The two passes over memory that a step consists of, in plain torch.

The first pass moves the momentum and sums over each unit what its step follows from (see
:mod:`smd_hooks.optim.sphere`); between them the factors of all units are worked out at
once; the second pass moves the weights. This form runs anywhere, one tensor after the
other; faster ones for all tensors at a time take the same arguments.

Arithmetic is in float64, storage in the tensors' own dtype: two forms then agree on the
sign of a momentum, but for coincidences of 1e-16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..measure.tiles import addresses
from .units import Units


class Direction(IntEnum):
    """How gradients become a direction u, with the settings it takes per tensor.

    - ``MOMENTUM`` (keep): v ← keep·v + g + decay·w; u = v
    - ``ADAM`` (β₁, β₂, ε, s₁, s₂): m ← β₁m + (1−β₁)g, q ← β₂q + (1−β₂)g²;
      u = s₁m / (s₂√q + ε)
    - ``SIGN`` (keep, a, b): m ← keep·m + (1−keep)·g; u = sign(a·m + b·g)
    """

    MOMENTUM = 0
    ADAM = 1
    SIGN = 2


SETTINGS = 5
"""Settings per tensor that a direction may take; those that it does not are ignored."""


@dataclass(frozen=True)
class Batch:
    """Tensors that step together: same device and dtype, dense and laid out alike.

    Attributes:
        direction: What is done with gradients.
        units: How elements belong together.
        weights: One per tensor.
        gradients: One per weight, read only.
        buffers: The direction's buffers: one list for ``MOMENTUM`` and ``SIGN``, two for
            ``ADAM``, of one per weight.
        settings: Float64, shape (tensors, :data:`SETTINGS`), on the device.
        decay: Coupled weight decay of each unit, float64, shape (units,); None for none.
            For ``MOMENTUM`` only.
    """

    direction: Direction
    units: Units
    weights: Sequence[Tensor]
    gradients: Sequence[Tensor]
    buffers: Sequence[Sequence[Tensor]]
    settings: Tensor
    decay: Tensor | None = None

    def addresses(self) -> np.ndarray:
        """Return where each weight, gradient and first and second buffer (or 0) lie, int64."""
        return addresses([self.weights, self.gradients, *self.buffers])


class Passes(Protocol):
    """One form of the two passes."""

    def direction_sums(self, batch: Batch, needed: bool = True) -> Tensor | None:
        """Move the buffers; return the sums, float64 of shape (units, 5), if they are needed."""

    def move(self, batch: Batch, factors: Tensor) -> None:
        """Move the weights by float64 factors of shape (units, 3)."""


class TorchPasses:
    """The passes in plain torch."""

    def direction_sums(self, batch: Batch, needed: bool = True) -> Tensor | None:
        """See :class:`Passes`."""
        sums = []
        for i, (w, g, buffers) in enumerate(_rows(batch)):
            _update_buffers(batch, i, w, g, buffers)
            if needed:
                w, u = w.double(), _direction(batch, i, g, buffers)
                parts = (w * w, w * u, u * u, w, u)
                sums.append(torch.stack([part.sum(1) for part in parts], 1))
        return torch.cat(sums) if needed else None

    def move(self, batch: Batch, factors: Tensor) -> None:
        """See :class:`Passes`."""
        parts = batch.units.split(factors)
        for i, (w, g, buffers) in enumerate(_rows(batch)):
            a, b, c = parts[i].split(1, dim=1)
            w.copy_(a * w.double() + b * _direction(batch, i, g, buffers) + c)


def _rows(batch: Batch) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, ...]]]:
    rows = batch.units.rows
    buffers = zip(*map(rows, batch.buffers), strict=True)
    yield from zip(rows(batch.weights), rows(batch.gradients), buffers, strict=True)


def _update_buffers(
    batch: Batch, i: int, w: Tensor, g: Tensor, buffers: tuple[Tensor, ...]
) -> None:
    keep, beta2, *_ = batch.settings[i]
    g = g.double()
    if batch.direction is Direction.MOMENTUM:
        if batch.decay is not None:
            g = g + batch.units.split(batch.decay)[i][:, None] * w.double()
        buffers[0].copy_(keep * buffers[0].double() + g)
        return
    buffers[0].copy_(keep * buffers[0].double() + (1 - keep) * g)
    if batch.direction is Direction.ADAM:
        buffers[1].copy_(beta2 * buffers[1].double() + (1 - beta2) * g * g)


def _direction(batch: Batch, i: int, g: Tensor, buffers: tuple[Tensor, ...]) -> Tensor:
    first = buffers[0].double()
    if batch.direction is Direction.MOMENTUM:
        return first
    if batch.direction is Direction.SIGN:
        _, a, b, *_ = batch.settings[i]
        # where the gradient has no share, not even an infinite one counts
        return torch.sign(a * first + torch.where(b == 0, 0.0, b * g.double()))
    _, _, eps, s1, s2 = batch.settings[i]
    return s1 * first / (s2 * buffers[1].double().sqrt() + eps)
