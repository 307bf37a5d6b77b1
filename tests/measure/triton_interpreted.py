"""Run with TRITON_INTERPRET=1: the kernel, interpreted on the CPU, equals the reference.

Prints the number of comparisons that came out right, 4. bf16 is left out: the interpreter
cuts it off where a GPU rounds.
"""

from __future__ import annotations

from typing import Any

import torch
from triton.runtime import interpreter

from smd_hooks.measure import device_tiles
from smd_hooks.measure.c_sums import Vectors
from smd_hooks.measure.fused import one_by_one
from smd_hooks.measure.triton_sums import TritonSums

SHAPES = [(1300,), (3, 27), (2, 150), (70, 1), (0,), (3, 0), (2, 512), (1,), (2, 1100)]
"""Vectors and rows of all tile shapes, in parts and whole, and tensors that hold nothing."""


def let_scalars_be_ranges() -> None:
    """Let loops run to a loaded bound; numpy 2.4 does not take [5] for a 5 any more."""
    original = interpreter._patch_lang_tensor

    def patch(tensor: Any, *scope: Any) -> None:
        original(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    interpreter._patch_lang_tensor = patch


def steps_of(dtype: torch.dtype, seed: int) -> list[Vectors]:
    """One step of a tensor of each shape, every third without a momentum buffer."""
    generator = torch.Generator().manual_seed(seed)
    steps: list[Vectors] = []
    for i, shape in enumerate(SHAPES):
        w, d, g, b = (torch.randn(shape, generator=generator).to(dtype) for _ in range(4))
        steps.append((w, w + (1e-3 * d).to(dtype), g, None if i % 3 == 2 else b))
    return steps


def compare(fast: TritonSums, steps: list[Vectors], others: list[Vectors]) -> None:
    """Hold the sums of a step against the readable ones of another."""
    got, wanted = fast(steps), one_by_one(others)
    assert got.shape == wanted.shape
    scale = torch.linalg.vector_norm(wanted.nan_to_num(), dim=-1, keepdim=True)
    close = (got - wanted).abs() <= 1e-12 * scale
    assert (close | (got.isnan() & wanted.isnan())).all()


def main() -> None:
    """Compare, see the comparison fail where it must, and pass the check of the choice."""
    let_scalars_be_ranges()
    device_tiles.PART = 512
    fast, compared = TritonSums(), 0
    for dtype in (torch.float32, torch.float16):
        steps = steps_of(dtype, seed=0)
        compare(fast, steps, steps)
        compared += 1
    broken = steps_of(torch.float32, seed=1)
    broken[0][2][7] = torch.nan  # of it alone, and with no buffer no momentum's product
    broken[2][2][1, 3] = torch.nan
    compare(fast, broken, broken)
    compared += 1
    steps = steps_of(torch.float32, seed=2)
    other = [(w, a, g * (1 + 1e-6), b) for w, a, g, b in steps]
    try:
        compare(fast, steps, other)
    except AssertionError:
        compared += 1
    print(compared)


if __name__ == "__main__":
    main()
