"""Run with TRITON_INTERPRET=1: the kernels, interpreted on the CPU, equal the readable form.

Prints the number of comparisons that came out right, 13. bf16 is left out: the interpreter
cuts it off where a GPU rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from smd_hooks.measure import device_tiles
from smd_hooks.optim import triton_passes
from smd_hooks.optim.choose_passes import CheckedPasses
from smd_hooks.optim.passes import Batch, Direction, TorchPasses

from ..measure.triton_interpreted import let_scalars_be_ranges
from .batches import batch_of, magnitudes, stepped

SHAPES = [(1, 1300), (3, 27), (2, 150), (70, 1), (0, 4), (3, 0), (2, 512)]
"""Units of all tile shapes, in parts and whole, and tensors that hold nothing."""


def compare(fast: triton_passes.TritonPasses, batch: Batch, other: Batch, needed: bool) -> None:
    """Hold a step of the kernels against the readable one of another batch."""
    exact = batch.direction is not Direction.ADAM
    weights, buffers, sums = stepped(fast, batch, needed)
    wanted_weights, wanted_buffers, wanted_sums = stepped(TorchPasses(), other, needed)
    for got, wanted in zip(buffers, wanted_buffers, strict=True):
        assert torch.equal(got, wanted)
    rounding = 0.0 if exact else torch.finfo(weights[0].dtype).eps
    for got, wanted in zip(weights, wanted_weights, strict=True):
        root = 0.0 if exact or not wanted.numel() else 1e-7 * float(wanted.abs().max())
        assert torch.allclose(got, wanted, rtol=rounding, atol=root)
    assert (sums is None) == (not needed)
    if sums is not None and wanted_sums is not None:
        bounds = (1e-12 if exact else 1.3e-7) * magnitudes(batch, wanted_sums)
        assert ((sums - wanted_sums).abs() <= bounds).all()


def batches() -> Iterator[tuple[Batch, bool]]:
    """Yield batches of all kinds, and whether their sums are needed."""
    for direction in Direction:
        for dtype, needed in (
            (torch.float32, True),
            (torch.float32, False),
            (torch.float16, True),
        ):
            for decays in {False, direction is Direction.MOMENTUM}:
                batch = batch_of(direction, SHAPES, decays=decays, dtype=dtype)
                if direction is Direction.ADAM:
                    batch.settings[:, 2] = 0.1  # directions that fp16 holds
                yield batch, needed


def main() -> None:
    """Compare, see the comparison fail where it must, and pass the check of the choice."""
    let_scalars_be_ranges()
    device_tiles.PART = 512
    fast, compared = triton_passes.TritonPasses(), 0
    for batch, needed in batches():
        compare(fast, batch, batch, needed)
        compared += 1
    batch = batch_of(Direction.SIGN, [(4, 10)])
    try:
        compare(fast, batch, replace(batch, settings=batch.settings * (1 + 1e-5)), True)
    except AssertionError:
        compared += 1
    checked = CheckedPasses(fast, torch.float32, torch.device("cpu"))
    stepped(checked, batch)
    assert checked._form(Direction.SIGN) is fast
    print(compared)


if __name__ == "__main__":
    main()
