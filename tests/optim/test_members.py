"""Which parameters step together, in which units, and around which radii."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from smd_hooks.optim.members import Member, Members, anchor, find_members
from smd_hooks.optim.state import buffer_beside, keep_per_unit, on_device, per_unit
from tests.optim.cases import laid_out, made, norms


def test_parameters_are_sorted_by_dtype_and_those_without_a_gradient_left_out() -> None:
    single, double = made(3, 4), made(2, 2, dtype=torch.float64)
    missing, empty, late = made(5, 5), made(0, 3), made(6)
    for w in (single, double, empty, late):
        w.grad = torch.zeros_like(w)
    groups = [
        {"params": [single, missing, double], "per_neuron": True},
        {"params": [empty, late], "per_neuron": False},
    ]
    found = find_members("Test", groups, lambda group, p: p.ndim > 1)
    assert [m.parameters for m in found] == [[single, late], [double]]
    together = found[0]
    assert [(m.group, m.turns, m.per_row) for m in together.members] == [
        (0, True, True),
        (1, False, False),
    ]
    assert together.units.counts == (3, 1)
    assert together.units.lengths == (4, 6)
    assert together.turns.tolist() == [True, True, True, False]
    assert together.turning == [0]
    assert together.elements.tolist() == [4, 4, 4, 6]
    assert (together.groups, together.group_of.tolist()) == ((0, 1), [0, 1])


@torch.no_grad()
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "gapped"])
@pytest.mark.parametrize("per_row", [True, False])
def test_a_radius_is_a_units_norm_in_any_layout(layout: str, per_row: bool) -> None:
    plain = made(5, 4, 3, 3)
    w = laid_out(plain, layout)
    radius = anchor(Member(w, 0, True, per_row), zero_mean=False)
    assert radius.dtype == torch.float32
    assert torch.allclose(radius.double(), norms(plain, per_row), rtol=1e-7)
    assert torch.equal(w, plain)
    assert torch.equal(anchor(Member(w, 0, True, per_row), zero_mean=True), radius)
    rows = w.detach().double().reshape(5 if per_row else 1, -1)
    assert rows.mean(1).abs().max() < 1e-7
    assert torch.allclose(norms(w, per_row), norms(plain, per_row), rtol=1e-6)


def test_weights_with_gaps_are_stepped_in_a_copy_and_put_back() -> None:
    dense, gapped = made(3, 4), laid_out(made(3, 4, seed=1), "gapped")
    members = Members((Member(dense, 0, True, True), Member(gapped, 0, True, True)))
    weights = members.weights()
    assert weights[0] is dense
    assert weights[1].is_contiguous()
    with torch.no_grad():
        for w in weights:
            w.add_(1.0)
        members.put_back(weights)
    assert torch.equal(gapped, made(3, 4, seed=1) + 1)


def test_buffers_lie_as_their_weights_do_and_keep_what_was_loaded() -> None:
    w = laid_out(made(4, 5, 3, 3), "channels_last")
    fresh = buffer_beside(w, True, None)
    assert fresh.stride() == w.stride()
    assert not fresh.any()
    loaded = torch.randn(4, 5, 3, 3)
    laid = buffer_beside(w, True, loaded)
    assert laid.stride() == w.stride()
    assert torch.equal(laid, loaded)
    assert buffer_beside(w, True, laid) is laid
    gapped = laid_out(made(4, 6), "gapped")
    assert buffer_beside(gapped, False, None).is_contiguous()


def test_what_is_kept_per_unit_comes_back_to_the_weights_that_turn() -> None:
    turning, vector = made(3, 4), nn.Parameter(torch.zeros(2))
    members = Members((Member(vector, 0, False, False), Member(turning, 0, True, True)))
    states = [{}, {"radius": torch.tensor([1.0, 2.0, 3.0])}]
    assert per_unit(members, states, "radius").tolist() == [0, 1, 2, 3]
    keep_per_unit(members, states, "radius", torch.tensor([9.0, 4.0, 5.0, 6.0]).double())
    assert states[1]["radius"].tolist() == [4, 5, 6]


def test_numbers_and_tensors_make_one_table() -> None:
    cpu = torch.device("cpu")
    plain = on_device([[0.1, 2.0], [3.0, 4.0]], cpu)
    mixed = on_device([[0.1, torch.tensor(2.0)], [3.0, 4.0]], cpu)
    assert torch.equal(plain, mixed)
    assert plain.dtype == torch.float64
