"""What users of such optimizers meet: odd gradients, odd weights, wrong settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from smd_hooks.optim import LionA, LionAR
from tests.optim.cases import (
    PLAIN,
    TURNING,
    Case,
    Gradients,
    distance,
    laid_out,
    made,
    mixed_weights,
    name_of,
    norms,
    stepped,
)

each = pytest.mark.parametrize("case", PLAIN, ids=name_of)
each_turning = pytest.mark.parametrize("case", TURNING, ids=name_of)


# ------------------------------------------------------------------------------ gradients


@each
def test_weights_without_a_gradient_are_as_if_they_were_not_there(case: Case) -> None:
    weights, alone = [made(3, 4), made(5, 6, seed=1)], [made(3, 4)]
    untouched = weights[1].detach().clone()
    optimizer, other = case.build(weights), case.build(alone)
    gradients = Gradients()
    for _ in range(4):
        gradients.give(weights[:1], alone)
        optimizer.step()
        other.step()
    assert torch.equal(weights[0], alone[0])
    assert torch.equal(weights[1], untouched)
    assert weights[1] not in optimizer.state


@each
def test_a_weight_unfrozen_later_starts_where_it_then_is(case: Case) -> None:
    frozen, fresh = made(5, 6), made(5, 6)
    others = [made(4, 4, seed=2), made(4, 4, seed=2)]
    optimizer = case.build([others[0], frozen.requires_grad_(False)])
    gradients = Gradients(1)
    gradients.give([others[0]])
    optimizer.step()
    with torch.no_grad():
        frozen.mul_(3)
        fresh.mul_(3)
    frozen.requires_grad_(True)
    control = case.build([fresh])
    late = Gradients()
    for _ in range(3):
        late.give([frozen], [fresh])
        optimizer.step()
        control.step()
    assert torch.equal(frozen, fresh)


@each
def test_a_gradient_that_is_missing_for_a_step_stops_the_clock_of_its_weight(case: Case) -> None:
    """Momentum, the number of steps and the average wait, as torch's optimizers do it."""
    here, there = [made(5, 6)], [made(5, 6)]
    optimizer, control = case.build(here), case.build(there)
    gradients = Gradients()
    for t in range(6):
        gradients.give(here, there)
        if t % 2:
            here[0].grad = None
            optimizer.step()
            continue
        optimizer.step()
        control.step()
    assert torch.equal(here[0], there[0])
    assert float(optimizer.state[here[0]]["step"]) == 3


@each
def test_groups_added_on_the_way(case: Case) -> None:
    first, late = made(4, 5), made(6, 3, seed=1)
    optimizer = stepped(case, [first])
    optimizer.add_param_group({"params": [late], "lr": 0.05})
    control = case.build([{"params": [fresh := made(6, 3, seed=1)], "lr": 0.05}])
    gradients = Gradients()
    for _ in range(3):
        gradients.give([late], [fresh])
        first.grad = torch.ones_like(first)
        optimizer.step()
        control.step()
    assert torch.equal(late, fresh)
    if case.kind.rotates:
        assert optimizer.param_groups[1]["peak_lr"] == 0.05


@each
def test_sparse_and_complex_gradients_are_refused_in_one_line(case: Case) -> None:
    table = nn.Embedding(10, 4, sparse=True)
    optimizer = case.build(table.parameters())
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match=rf"^{case.kind.__name__}: .*\(10, 4\) is sparse") as e:
        optimizer.step()
    assert "\n" not in str(e.value)
    wave = nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
    wave.grad = torch.ones_like(wave)
    with pytest.raises(RuntimeError, match="is complex"):
        case.build([wave]).step()


@each
def test_zero_gradients_move_nothing_but_by_decay(case: Case) -> None:
    w = made(4, 6)
    with torch.no_grad():
        w.sub_(w.mean(1, keepdim=True))
    before = w.detach().clone()
    optimizer = case.build([w], weight_decay=0.1)
    w.grad = torch.zeros_like(w)
    for _ in range(3):
        optimizer.step()
    decayed = before * (1 - 1e-3) ** 3 if case.kind is LionA else before
    assert torch.allclose(w.detach(), decayed, rtol=1e-6)


# -------------------------------------------------------------------------------- weights


@each
def test_weights_of_norm_zero_take_the_ordinary_update(case: Case) -> None:
    zero, opted_out = nn.Parameter(torch.zeros(4, 6)), nn.Parameter(torch.zeros(4, 6))
    optimizer = case.build([zero])
    groups: Any = [{"params": [opted_out], "rotational": False}]
    other = case.build(groups if case.kind.rotates else [opted_out])
    gradients = Gradients()
    for _ in range(5):
        gradients.give([zero], [opted_out])
        optimizer.step()
        other.step()
    assert zero.isfinite().all()
    assert zero.abs().max() > 0
    assert torch.equal(zero, opted_out)


@each_turning
def test_a_row_of_norm_zero_takes_the_ordinary_update_and_the_others_turn(case: Case) -> None:
    w = made(4, 6)
    with torch.no_grad():
        w[1] = 0
    start = norms(w, True)
    stepped(case, [w], 5)
    after = norms(w, True)
    assert w.isfinite().all()
    assert after[1] > 0
    assert torch.allclose(after[[0, 2, 3]], start[[0, 2, 3]], rtol=1e-6)


@each_turning
@pytest.mark.parametrize("fast", [True, False])
def test_a_row_that_was_set_to_zero_on_the_way_poisons_nothing(case: Case, fast: bool) -> None:
    """Pruning: without a direction of its own it moves as an ordinary one, and then turns again."""
    w = made(4, 6)
    optimizer = stepped(case, [w])
    radius = optimizer.state[w]["radius"].double()
    with torch.no_grad():
        w[1] = 0
    gradients = Gradients(5)
    gradients.give([w])
    optimizer.step() if fast else optimizer.reference_step()
    assert w.isfinite().all()
    assert 0 < norms(w, True)[1] < 0.1 * radius[1]
    gradients.give([w])
    optimizer.step() if fast else optimizer.reference_step()
    assert torch.allclose(norms(w, True), radius, rtol=1e-6)


@each_turning
def test_units_without_two_free_directions_take_the_ordinary_update(case: Case) -> None:
    w = made(5, 1)
    optimizer = stepped(case, [w])
    assert "radius" not in optimizer.state[w]
    pair = made(5, 2)
    optimizer = stepped(case, [pair])
    # two elements without a mean are one
    assert ("radius" in optimizer.state[pair]) == (case.kind is LionAR)
    whole = made(5, 1)
    optimizer = stepped(case, [whole], per_neuron=False)
    assert "radius" in optimizer.state[whole]


def test_by_default_matrices_with_weight_decay_are_rotational() -> None:
    matrix, vector, plain, told, not_told = (made(*s) for s in ((3, 4), (4,), (3, 4), (6,), (3, 4)))
    optimizer = LionAR(
        [
            {"params": [matrix, vector]},
            {"params": [plain], "weight_decay": 0.0},
            {"params": [told], "rotational": True, "per_neuron": False},
            {"params": [not_told], "rotational": False},
        ],
        0.01,
        weight_decay=0.1,
    )
    for w in (matrix, vector, plain, told, not_told):
        w.grad = torch.randn_like(w)
    optimizer.step()
    assert ["radius" in optimizer.state[w] for w in (matrix, vector, plain, told, not_told)] == [
        True,
        False,
        False,
        True,
        False,
    ]


@each_turning
def test_norms_stay_for_hundreds_of_steps(case: Case) -> None:
    weights = [made(16, 27), made(8, 4, 3, 3), made(3, 500)]
    start = [norms(w, True) for w in weights]
    stepped(case, weights, 400)
    for w, before in zip(weights, start, strict=True):
        assert (norms(w, True) / before - 1).abs().max() <= 1e-6


@each
def test_a_weight_laid_out_anew_keeps_its_momentum(case: Case) -> None:
    changed, same = [made(4, 5, 3, 3)], [made(4, 5, 3, 3)]
    one, other = case.build(changed), case.build(same)
    gradients = Gradients()
    for t in range(8):
        if t == 4:
            changed[0].data = changed[0].data.to(memory_format=torch.channels_last)
        gradients.give(changed, same)
        one.step()
        other.step()
    assert changed[0].is_contiguous(memory_format=torch.channels_last)
    assert distance(changed[0], same[0]) < 1e-6


@each
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "gapped"])
def test_layouts_give_the_same_weights(case: Case, layout: str) -> None:
    plain = [made(6, 5, 3, 4)]
    other = [laid_out(plain[0], layout)]
    strides = other[0].stride()
    one, two = case.build(plain), case.build(other)
    gradients = Gradients()
    for _ in range(10):
        gradients.give(plain, other)
        one.step()
        two.step()
    assert other[0].stride() == strides
    assert distance(other[0], plain[0]) < 1e-6


@each
def test_huge_and_tiny_values_turn_as_others_do(case: Case) -> None:
    """Momenta of AdamW overflow where gradients' squares do; nothing else may."""
    for size in (1e15, 1e-12):
        scaled, plain = [made(4, 6)], [made(4, 6)]
        with torch.no_grad():
            scaled[0].mul_(size)
        one, other = case.build(scaled, lr=1e-3), case.build(plain, lr=1e-3)
        gradients = Gradients()
        for _ in range(5):
            gradients.give(plain)
            gradient = plain[0].grad
            assert gradient is not None
            scaled[0].grad = gradient * (1e15 if size > 1 else 1.0)
            one.step()
            other.step()
        assert scaled[0].isfinite().all()
        if case.kind.rotates:
            assert distance(scaled[0] / size, plain[0]) < 1e-5


@each
def test_the_graph_of_a_weight_that_has_moved_since_is_refused(case: Case) -> None:
    """As with torch's own optimizers: a gradient would be wrong without a word."""
    w = made(4, 6)
    optimizer = case.build([w])
    loss = (w**2).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_all_parameters_of_all_kinds_at_once_are_each_as_if_alone() -> None:
    for case in PLAIN:
        together = [w for w in mixed_weights() if w.numel()]
        optimizer, gradients = case.build(together), Gradients()
        singles = [nn.Parameter(w.detach().clone()) for w in together]
        alone = [case.build([w]) for w in singles]
        for _ in range(5):
            gradients.give(together, singles)
            optimizer.step()
            for other in alone:
                other.step()
        assert all(torch.equal(a, b) for a, b in zip(together, singles, strict=True))
