"""All of a step's tensors in one pass: in C on the CPU, in Triton on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from . import c_sums
from .c_sums import Reduce, Vectors
from .geometry import STEP_SUMS, step_sums

IN_TRITON = (torch.float32, torch.float16, torch.bfloat16)
"""What the GPU's form reads."""


def fused_step_sums(steps: Sequence[Vectors]) -> Tensor:
    """Reduce one step of many weights; see :func:`~smd_hooks.measure.geometry.step_sums`.

    Args:
        steps: For each weight its vectors, each of shape (elements,) or (rows, elements).

    Returns:
        Float64 of shape (rows of all weights, 6), on the first weight's device. Nothing is
        read back from it.
    """
    if not steps:
        return torch.empty(0, len(STEP_SUMS), dtype=torch.float64)
    first = steps[0][0]
    form = None
    if c_sums.is_for(steps):
        form = c_sums.load()
    elif _are_for_triton(steps):
        form = load_triton(first.dtype, first.device)
    return one_by_one(steps) if form is None else form(steps)


def one_by_one(steps: Sequence[Vectors]) -> Tensor:
    """Do the same by the readable form, one weight after the other."""
    rows = [step_sums(*vectors).reshape(-1, len(STEP_SUMS)) for vectors in steps]
    return torch.cat([row.to(steps[0][0].device, non_blocking=True) for row in rows])


def _are_for_triton(steps: Sequence[Vectors]) -> bool:
    first = steps[0][0]
    return (
        first.is_cuda
        and first.dtype in IN_TRITON
        and all(
            t is None or (t.dtype is first.dtype and t.device == first.device and t.is_contiguous())
            for vectors in steps
            for t in vectors
        )
    )


@cache
def load_triton(dtype: torch.dtype, device: torch.device) -> Reduce | None:
    """Return the form in Triton; None where there is none that gives what the reference does.

    It depends on a compiler and a GPU that may be newer than this package: a small trial is held
    against the reference before it is used.
    """
    try:
        from .triton_sums import TritonSums
    except ImportError:  # not on every platform that CUDA is on
        return None
    sums, steps = TritonSums(), _trial(dtype, device)
    try:
        got, wanted = sums(steps), one_by_one(steps)
        scale = torch.linalg.vector_norm(wanted, dim=-1, keepdim=True)
        failure = "" if ((got - wanted).abs() <= 1e-11 * scale).all() else "gives other values"
    except Exception as error:  # whatever a compiler or a driver raises
        failure = f"fails ({' '.join(repr(error).split())[:200]})"
    if not failure:
        return sums
    warnings.warn(
        f"measuring on {device} is slower than it could be: the form in Triton {failure}",
        stacklevel=2,
    )
    return None


def _trial(dtype: torch.dtype, device: torch.device) -> list[Vectors]:
    """Vectors and rows of all lengths, with momentum and without."""
    generator = torch.Generator().manual_seed(0)
    steps: list[Vectors] = []
    for i, shape in enumerate([(5, 3), (3, 200), (2, 1000), (40_000,), (1,)]):
        w, a, g, b = torch.randn(4, *shape, generator=generator).to(device, dtype)
        steps.append((w, a, g, b if i % 2 else None))
    return steps
