from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smd_hooks.measure import InvarianceWatch
from smd_hooks.measure.verdict import Verdict
from smd_hooks.optim import (
    LionA,
    LionAR,
    RotationalAdamW,
    RotationalLion,
    RotationalSGD,
    find_scale_invariant,
    param_groups,
)

OURS = (LionA, LionAR, RotationalAdamW, RotationalLion, RotationalSGD)


class Net(nn.Module):
    """Two normalized convs, the second behind a gain that begins at 0, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        nn.init.zeros_(self.block[1].weight)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.block(x)).mean((2, 3)))


class Tied(nn.Module):
    """A language model's two ends, which share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.body = nn.Linear(5, 5)
        self.lm_head = nn.Linear(5, 7, bias=False)
        self.lm_head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm_head(self.body(self.embedding(tokens)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


Batch = tuple[Tensor, Tensor]


def batches(count: int = 8) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 16, 3, 8, 8, generator=generator)
    return [(batch, torch.arange(16) % 4) for batch in images]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def named(groups: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {group["name"]: group["param_names"] for group in groups}


def test_matrices_turn_and_gains_and_biases_do_not_decay(net: Net) -> None:
    groups = param_groups(net)
    assert named(groups) == {
        "rotational": ["stem.0.weight", "block.0.weight", "head.weight"],
        "gains and biases": [
            *("stem.0.bias", "stem.1.weight", "stem.1.bias"),
            *("block.1.weight", "block.1.bias", "head.bias"),
        ],
    }
    assert [group["rotational"] for group in groups] == [True, False]
    assert groups[1]["weight_decay"] == 0
    assert "weight_decay" not in groups[0]  # the optimizer's holds
    own = dict(net.named_parameters())
    for group in groups:
        assert all(own[n] is p for n, p in zip(group["param_names"], group["params"], strict=True))


def turned(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(p) for p, state in optimizer.state.items() if "radius" in state}


@pytest.mark.parametrize("kind", OURS[1:])
def test_what_turns_is_what_the_optimizers_turn_by_themselves(
    net: Net, kind: Callable[..., torch.optim.Optimizer]
) -> None:
    loss(net, batches(1)[0]).backward()
    alone = kind(net.parameters(), lr=1e-3, weight_decay=0.1)
    grouped = kind(param_groups(net), lr=1e-3, weight_decay=0.1)
    alone.step()
    grouped.step()
    assert turned(grouped) == turned(alone) == {id(p) for p in net.parameters() if p.ndim > 1}


def test_patterns_name_modules_and_parameters(net: Net) -> None:
    for pattern in ("head", "hea?", "head.*", "head.weight", "*.weight"):
        found = named(param_groups(net, ordinary=pattern))
        assert "head.weight" in found["ordinary"], pattern
        assert "head.bias" in found["gains and biases"]
    assert named(param_groups(net, ["stem", "block.0"]))["ordinary"] == [
        *("stem.0.weight", "block.0.weight")
    ]
    # a name's beginning is no module
    with pytest.raises(ValueError, match="matches no parameter"):
        param_groups(net, "hea")


def test_an_ordinary_matrix_decays_and_changes_its_norm(net: Net) -> None:
    optimizer = RotationalSGD(param_groups(net, "head"), lr=0.1, weight_decay=0.1)
    decay = {g["name"]: g["weight_decay"] for g in optimizer.param_groups}
    assert decay == {"rotational": 0.1, "ordinary": 0.1, "gains and biases": 0}
    before = {name: p.detach().norm() for name, p in net.named_parameters()}
    for batch in batches():
        optimizer.zero_grad()
        loss(net, batch).backward()
        optimizer.step()
    change = {name: float(p.detach().norm() / before[name]) for name, p in net.named_parameters()}
    assert change["stem.0.weight"] == pytest.approx(1, abs=1e-6)
    assert abs(change["head.weight"] - 1) > 1e-3


def test_a_pattern_that_matches_nothing_is_one_clear_line(net: Net) -> None:
    with pytest.raises(ValueError, match=r"ordinary='fc\.\*' matches no .* stem, block, head$"):
        param_groups(net, ordinary=["head", "fc.*"])


def test_tied_weights_come_once_under_either_name() -> None:
    model = Tied()
    assert named(param_groups(model))["rotational"] == ["embedding.weight", "body.weight"]
    for name in ("embedding", "lm_head"):
        found = named(param_groups(model, name))
        assert found["ordinary"] == ["embedding.weight"], name
        assert found["rotational"] == ["body.weight"]


def test_frozen_parameters_are_left_out_and_wrappers_are_looked_through(net: Net) -> None:
    net.stem.requires_grad_(False)
    assert named(param_groups(net))["rotational"] == ["block.0.weight", "head.weight"]
    compiled = torch.compile(net)
    assert isinstance(compiled, nn.Module)
    assert named(param_groups(compiled, "head")) == named(param_groups(net, "head"))


@pytest.mark.parametrize("kind", [*OURS, torch.optim.AdamW])
def test_a_checkpoint_in_another_order_is_refused(
    net: Net, kind: Callable[..., torch.optim.Optimizer]
) -> None:
    optimizer = kind(param_groups(net), lr=1e-3, weight_decay=0.1)
    loss(net, batches(1)[0]).backward()
    optimizer.step()
    saved = optimizer.state_dict()
    kind(param_groups(net), lr=1e-3, weight_decay=0.1).load_state_dict(saved)
    other = param_groups(net)
    for entries in (other[1]["params"], other[1]["param_names"]):
        entries[1], entries[2] = entries[2], entries[1]  # a gain for a bias, of one shape
    swapped = kind(other, lr=1e-3, weight_decay=0.1)
    if kind is torch.optim.AdamW:  # torch itself takes it: the control
        swapped.load_state_dict(saved)
    else:
        with pytest.raises(ValueError, match=r"has stem\.1\.weight in place of stem\.1\.bias"):
            swapped.load_state_dict(saved)


# ------------------------------------------------------------------------------ detection


def test_only_what_is_found_scale_invariant_turns(net: Net) -> None:
    verdicts = find_scale_invariant(net, loss, batches())
    assert named(param_groups(net, scale_invariant=verdicts)) == {
        # the second conv had no gradient before its norm's gain left 0
        "rotational": ["stem.0.weight", "block.0.weight"],
        "ordinary": ["head.weight"],
        "gains and biases": named(param_groups(net))["gains and biases"],
    }
    both = named(param_groups(net, "stem", verdicts))
    assert both["rotational"] == ["block.0.weight"]
    assert both["ordinary"] == ["stem.0.weight", "head.weight"]


def test_what_a_watched_training_found_serves_as_well(net: Net) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    watch = InvarianceWatch(net, optimizer)
    for batch in batches(9):
        optimizer.zero_grad()
        loss(net, batch).backward()
        optimizer.step()
    findings = watch.poll()
    assert findings is not None
    groups = param_groups(net, scale_invariant=findings.verdicts)
    assert named(groups)["ordinary"] == ["head.weight"]


def test_without_its_norm_no_conv_turns(net: Net) -> None:
    net.block[1], net.stem[1] = nn.Identity(), nn.Identity()
    verdicts = find_scale_invariant(net, loss, batches())
    assert "rotational" not in named(param_groups(net, scale_invariant=verdicts))


def test_detection_changes_nothing(net: Net) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.random.get_rng_state()
    loader = torch.utils.data.DataLoader(batches(10), batch_size=None, shuffle=True)
    find_scale_invariant(net, loss, loader)
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_detection_takes_no_more_batches_than_it_needs(net: Net) -> None:
    left = iter(batches(20))
    find_scale_invariant(net, loss, left)
    assert len(list(left)) == 12


def test_what_cannot_be_found_out_is_refused(net: Net) -> None:
    with pytest.raises(ValueError, match="needs 8 batches, got 7"):
        find_scale_invariant(net, loss, batches(7))
    with pytest.raises(ValueError, match=r"eval mode; call model.train\(\)"):
        find_scale_invariant(net.eval(), loss, batches())


def test_verdicts_of_another_model_are_refused(net: Net) -> None:
    stranger = Verdict("conv.weight", (6, 3), True, 0.0, 8, "normalized")
    with pytest.raises(ValueError, match=r"no verdict on stem\.0\.weight; .* another model"):
        param_groups(net, scale_invariant=[stranger])


def test_a_tied_weight_has_the_verdict_of_its_first_name() -> None:
    model = Tied()
    verdicts = [
        Verdict(name, (5, 5), True, 0.0, 8, "normalized")
        for name in ("embedding.weight", "body.weight")
    ]
    assert named(param_groups(model, scale_invariant=verdicts))["rotational"] == [
        *("embedding.weight", "body.weight")
    ]
