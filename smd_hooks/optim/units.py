"""Which elements of many weights belong together, and how they lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Units:
    """The units of many tensors that step together, in their order.

    Each tensor lies dense in memory, unit after unit; within a unit the order of elements
    is whatever it is, but the same for a weight, its gradient and its buffers.

    Attributes:
        counts: Units of each tensor, here (a process may hold a shard).
        lengths: Elements of each unit of a tensor, here.
        device: Where the tensors are.
    """

    counts: tuple[int, ...]
    lengths: tuple[int, ...]
    device: torch.device

    def __len__(self) -> int:
        return sum(self.counts)

    @cached_property
    def tensor_of(self) -> Tensor:
        """Index of the tensor that each unit belongs to, shape (units,)."""
        numbers = torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts))
        return numbers.to(self.device)

    def spread(self, per_tensor: Tensor) -> Tensor:
        """Repeat one entry per tensor to one per unit, along the last dimension."""
        return per_tensor.index_select(-1, self.tensor_of)

    def split(self, per_unit: Tensor) -> list[Tensor]:
        """Cut what has one entry per unit into tensors' parts."""
        return list(per_unit.split(self.counts))

    def rows(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """View each tensor as (units, elements), in the order of memory."""
        shapes = zip(self.counts, self.lengths, strict=True)
        return [
            t.as_strided((count, length), (length, 1))
            for t, (count, length) in zip(tensors, shapes, strict=True)
        ]


def is_dense(tensor: Tensor, per_row: bool) -> bool:
    """Whether elements lie in memory without gaps, first dimension outermost if per row."""
    strides = sorted(
        ((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
         if size > 1)
    )  # fmt: skip
    expected = 1
    for stride, size in strides:
        if stride != expected:
            return False
        expected *= size
    if not per_row or tensor.ndim == 0 or tensor.shape[0] <= 1:
        return True
    return tensor.stride(0) * tensor.shape[0] == tensor.numel()


def in_layout_of(gradient: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient in the weight's dtype and order of memory, itself where it is so."""
    if gradient.stride() == weight.stride() and gradient.dtype == weight.dtype:
        return gradient
    return torch.empty_like(weight).copy_(gradient)
