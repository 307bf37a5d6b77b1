"""Random batches of tensors, and what a step with one form of the passes leaves of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from smd_hooks.optim.passes import Batch, Direction, Passes
from smd_hooks.optim.units import Units

Shape = tuple[int, int]
"""Units of a tensor, and their elements."""

SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 40), st.integers(0, 3)),
        st.tuples(st.integers(1, 4), st.integers(1, 700)),
    ),
    min_size=1,
    max_size=6,
)
"""Mixed tensors, those without units and those without elements in them."""

DIRECTIONS = st.sampled_from(list(Direction))


def batch_of(
    direction: Direction,
    shapes: list[Shape],
    seed: int = 0,
    decays: bool = False,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Batch:
    """Make a batch in mid-training; tensors differ in their settings, and a few are zero."""
    generator = torch.Generator().manual_seed(seed)

    def tensors(scale: float) -> list[Tensor]:
        made = [scale * torch.randn(shape, generator=generator) for shape in shapes]
        return [
            (tensor * (torch.rand(tensor.shape, generator=generator) < 0.9)).to(device, dtype)
            for tensor in made
        ]

    counts, lengths = zip(*shapes, strict=True)
    buffers = [tensors(0.3)]
    if direction is Direction.ADAM:
        buffers.append([q.square() for q in tensors(0.3)])
    settings = torch.rand(len(shapes), 5, generator=generator, dtype=torch.float64)
    if direction is Direction.ADAM:
        settings[:, 2] = 1e-8
    if direction is Direction.SIGN:
        settings[::2, 2] = 0.0
    decay = torch.rand(sum(counts), generator=generator, dtype=torch.float64).to(device)
    return Batch(
        direction,
        Units(counts, lengths, torch.device(device)),
        tensors(1.0),
        tensors(0.5),
        buffers,
        settings.to(device),
        decay if decays and direction is Direction.MOMENTUM else None,
    )


def stepped(
    passes: Passes, batch: Batch, needed: bool = True
) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
    """Step a copy of a batch by random factors; return its weights, buffers and sums."""
    copy = replace(
        batch,
        weights=[w.clone() for w in batch.weights],
        buffers=[[b.clone() for b in buffers] for buffers in batch.buffers],
    )
    sums = passes.direction_sums(copy, needed)
    generator = torch.Generator().manual_seed(1)
    factors = torch.randn(len(batch.units), 3, generator=generator, dtype=torch.float64)
    passes.move(copy, factors.to(batch.units.device))
    return list(copy.weights), [b for buffers in copy.buffers for b in buffers], sums


def magnitudes(batch: Batch, sums: Tensor) -> Tensor:
    """Bound the sums of each unit's absolute terms, by Cauchy and Schwarz; shape (units, 5)."""
    lengths = batch.units.spread(
        torch.tensor(batch.units.lengths, dtype=torch.float64, device=sums.device)
    )
    ww, uu = sums[:, 0], sums[:, 2]
    bounds = (ww, (ww * uu).sqrt(), uu, (lengths * ww).sqrt(), (lengths * uu).sqrt())
    return torch.stack(bounds, 1)
