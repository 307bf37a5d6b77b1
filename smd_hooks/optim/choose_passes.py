"""Which form of the two passes a batch of tensors takes."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from . import c_passes
from .passes import SETTINGS, Batch, Direction, Passes, TorchPasses
from .units import Units

IN_TRITON = (torch.float32, torch.float16, torch.bfloat16)
"""What the GPU's form stores; its arithmetic is float64 all the same."""


@cache
def passes_for(dtype: torch.dtype, device: torch.device) -> Passes:
    """Choose the fastest form that works here, :class:`TorchPasses` if no other does.

    Args:
        dtype: Of weights, gradients and buffers.
        device: Where they are.
    """
    if device.type == "cpu" and dtype is torch.float32:
        return c_passes.load() or TorchPasses()
    if device.type == "cuda" and dtype in IN_TRITON:
        try:
            from .triton_passes import TritonPasses
        except ImportError:  # not on every platform that CUDA is on
            return TorchPasses()
        return CheckedPasses(TritonPasses(), dtype, device)
    return TorchPasses()


class CheckedPasses:
    """A form that is held against :class:`TorchPasses` once per direction before it is used.

    It depends on a compiler and a GPU that may be newer than this package: where values
    differ, or nothing comes at all, the plain form steps instead, and says so once.
    """

    def __init__(self, fast: Passes, dtype: torch.dtype, device: torch.device) -> None:
        """Take the form to check, and what is to be stepped with it."""
        self._fast, self._plain = fast, TorchPasses()
        self._dtype, self._device = dtype, device
        self._chosen: dict[Direction, Passes] = {}

    def direction_sums(self, batch: Batch, needed: bool = True) -> Tensor | None:
        """See :class:`Passes`."""
        return self._form(batch.direction).direction_sums(batch, needed)

    def move(self, batch: Batch, factors: Tensor) -> None:
        """See :class:`Passes`."""
        self._form(batch.direction).move(batch, factors)

    def _form(self, direction: Direction) -> Passes:
        if direction not in self._chosen:
            if self._device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                return self._plain  # a check reads values back, which a capture forbids
            failure = self._failure(direction)
            if failure:
                warnings.warn(
                    f"optimizer steps on {self._device} are slower than they could be: {failure}",
                    stacklevel=2,
                )
            self._chosen[direction] = self._plain if failure else self._fast
        return self._chosen[direction]

    def _failure(self, direction: Direction) -> str:
        try:
            fast, plain = (
                _trial(passes, direction, self._dtype, self._device)
                for passes in (self._fast, self._plain)
            )
        except Exception as error:  # whatever a compiler or a driver raises
            return f"the fast form fails ({' '.join(repr(error).split())[:200]})"
        if all(_is_close(*pair, self._dtype) for pair in zip(fast, plain, strict=True)):
            return ""
        return "the fast form gives other values than the plain one"


def _is_close(got: Tensor, wanted: Tensor, dtype: torch.dtype) -> bool:
    """Whether values are the same up to one rounding of what they were stored in."""
    scale = float(wanted.abs().max())
    return torch.allclose(got, wanted, rtol=2 * torch.finfo(dtype).eps, atol=1e-6 * scale)


def _trial(
    passes: Passes, direction: Direction, dtype: torch.dtype, device: torch.device
) -> list[Tensor]:
    """Step a small random batch, rows of all lengths in it; return all that it changes."""
    generator = torch.Generator().manual_seed(0)
    counts, lengths = (5, 3, 2, 1), (3, 200, 1000, 40_000)
    units = Units(counts, lengths, device)

    def random() -> list[Tensor]:
        shapes = zip(counts, lengths, strict=True)
        return [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]

    weights, gradients, first, second = random(), random(), random(), random()
    buffers = [first, [q.square() for q in second]][: 2 if direction is Direction.ADAM else 1]
    settings = torch.tensor([[0.9, 0.99, 1e-8, 1.5, 0.7]] * len(counts), dtype=torch.float64)
    decay = torch.full((len(units),), 0.1, dtype=torch.float64, device=device)
    batch = Batch(
        direction,
        units,
        weights,
        gradients,
        buffers,
        settings[:, :SETTINGS].to(device),
        decay if direction is Direction.MOMENTUM else None,
    )
    sums = passes.direction_sums(batch)
    assert sums is not None
    passes.move(batch, torch.full((len(units), 3), 0.5, dtype=torch.float64, device=device))
    return [tensor.double() for tensor in (*weights, *first, *second, sums)]
