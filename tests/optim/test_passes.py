"""The readable form of the passes against the definitions, one number after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_hooks.optim.passes import Batch, Direction, TorchPasses

from .batches import DIRECTIONS, batch_of, magnitudes, stepped


def element_by_element(
    batch: Batch, factors: list[list[float]]
) -> tuple[list[float], list[list[float]], list[list[float]]]:
    """Return all new weights, the buffers of all elements, and the sums of each unit."""
    weights, buffers, sums, unit = [], [], [], 0
    for tensor, s in enumerate(batch.settings.tolist()):
        for row in range(batch.units.counts[tensor]):
            terms = [[0.0] * 5]
            for i in range(batch.units.lengths[tensor]):
                w, g = (float(t[tensor][row, i]) for t in (batch.weights, batch.gradients))
                first = float(batch.buffers[0][tensor][row, i])
                if batch.direction is Direction.MOMENTUM:
                    decay = 0.0 if batch.decay is None else float(batch.decay[unit])
                    u = s[0] * first + g + decay * w
                    moved = [u]
                elif batch.direction is Direction.ADAM:
                    m = s[0] * first + (1 - s[0]) * g
                    q = s[1] * float(batch.buffers[1][tensor][row, i]) + (1 - s[1]) * g**2
                    u = s[3] * m / (s[4] * math.sqrt(q) + s[2])
                    moved = [m, q]
                else:
                    m = s[0] * first + (1 - s[0]) * g
                    u = float(np.sign(s[1] * m + s[2] * g))
                    moved = [m]
                a, b, c = factors[unit]
                weights.append(a * w + b * u + c)
                buffers.append(moved)
                terms.append([w * w, w * u, u * u, w, u])
            sums.append([math.fsum(column) for column in zip(*terms, strict=True)])
            unit += 1
    return weights, buffers, sums


@settings(deadline=None, max_examples=30)
@given(
    DIRECTIONS,
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=4),
    st.integers(0, 1000),
    st.booleans(),
)
def test_the_readable_form_is_the_definition(
    direction: Direction, shapes: list[tuple[int, int]], seed: int, decays: bool
) -> None:
    batch = batch_of(direction, shapes, seed, decays, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    factors = torch.randn(len(batch.units), 3, generator=generator, dtype=torch.float64)
    weights, buffers, sums = stepped(TorchPasses(), batch)
    wanted_weights, wanted_buffers, wanted_sums = element_by_element(batch, factors.tolist())
    assert torch.cat([w.flatten() for w in weights]).tolist() == pytest.approx(
        wanted_weights, rel=1e-12, abs=1e-14
    )
    number = len(batch.buffers)
    for k in range(number):
        own = buffers[k * len(shapes) : (k + 1) * len(shapes)]
        got = torch.cat([tensor.flatten() for tensor in own]).tolist()
        assert got == pytest.approx([moved[k] for moved in wanted_buffers], rel=1e-12, abs=1e-14)
    assert sums is not None
    wanted = torch.tensor(wanted_sums, dtype=torch.float64).reshape(-1, 5)
    assert ((sums - wanted).abs() <= 1e-14 + 1e-12 * magnitudes(batch, wanted)).all()


@pytest.mark.parametrize("direction", list(Direction))
def test_without_sums_the_same_moves(direction: Direction) -> None:
    batch = batch_of(direction, [(3, 7), (1, 20)], decays=True)
    weights, buffers, sums = stepped(TorchPasses(), batch)
    others, other_buffers, none = stepped(TorchPasses(), batch, needed=False)
    assert sums is not None
    assert none is None
    for got, wanted in zip(others + other_buffers, weights + buffers, strict=True):
        assert torch.equal(got, wanted)
