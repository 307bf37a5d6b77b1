"""Joint groups: found where scaling all members together changes nothing, and only there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from smd_hooks.measure.joint_groups import JointGroup

from .observing import Joined, train


class Stream(nn.Module):
    """A residual stream of vectors that ends in norms only, unless something is added to it."""

    def __init__(self, norm: type[nn.Module] = nn.RMSNorm, bias: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.norms = nn.ModuleList(norm(8) for _ in range(3))
        self.up = nn.ModuleList(nn.Linear(8, 16, bias=False) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(16, 8, bias=bias) for _ in range(2))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.embed((x.abs() * 100).long() % 16)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=False):
            stream = stream + down(nn.functional.gelu(up(norm(stream))))
        return self.head(self.norms[2](stream))


def groups(model: nn.Module, shape: tuple[int, ...] = (6, 4, 12, 12)) -> list[JointGroup]:
    return train(model, shape=shape).groups()


def headed(model: nn.Module) -> nn.Module:
    return nn.Sequential(model, nn.Tanh(), nn.Conv2d(4, 2, 3))


def output_change(model: nn.Module, names: tuple[str, ...], shape: tuple[int, ...]) -> float:
    """Relative change of the output when these weights are doubled: no gradient involved."""
    torch.manual_seed(1)
    x = torch.randn(shape)
    with torch.no_grad():
        plain = model(x)
        for name in names:
            model.get_parameter(name).mul_(2)
        return float((model(x) - plain).norm() / plain.norm())


@pytest.mark.parametrize("bias", [False, True])
def test_two_convs_before_one_norm_are_one_unit(bias: bool) -> None:
    """A bias on either is taken out again by the batch norm."""
    torch.manual_seed(0)
    model = headed(Joined(bias=bias))
    (group,) = groups(model)
    assert group.members == ("0.left.weight", "0.right.weight")
    assert group.name == "0.left.weight + 0.right.weight"
    assert group.norms == ("0.norm",)
    assert group.statistic < 1e-5
    assert group.batches == 8
    shape = (6, 4, 12, 12)
    assert output_change(model, group.members, shape) < 1e-4
    assert output_change(model, group.members[:1], shape) > 1e-2


@pytest.mark.parametrize(
    "third",
    [
        nn.Identity(),
        nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.Tanh()),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()),
        nn.BatchNorm2d(4),
    ],
    ids=["input", "tanh", "bias and ReLU", "normalized"],
)
def test_a_third_summand_that_does_not_grow_along_makes_it_none(third: nn.Module) -> None:
    torch.manual_seed(0)
    model = headed(Joined(third))
    observer = train(model)
    assert observer.groups() == []
    left = next(v for v in observer.verdicts() if v.parameter == "0.left.weight")
    assert left.scale_invariant is False
    assert "a sum with something else" in left.reason
    assert output_change(model, ("0.left.weight", "0.right.weight"), (6, 4, 12, 12)) > 1e-2


def test_a_third_conv_joins_the_group() -> None:
    (group,) = groups(headed(Joined(nn.Conv2d(4, 4, 3, padding=1))))
    assert group.members == ("0.left.weight", "0.right.weight", "0.third.weight")


def test_gradients_refuse_what_the_graph_would_allow() -> None:
    """A norm with a large eps follows; the graph looks the same."""
    model = headed(Joined())
    model[0].norm.eps = 10.0
    observer = train(model)
    assert observer._candidates
    assert observer.groups() == []


def test_a_residual_stream_that_ends_in_norms_is_one_vector() -> None:
    torch.manual_seed(0)
    model, shape = Stream(), (8, 5)
    (group,) = groups(model, shape)
    assert group.members == ("embed.weight", "down.0.weight", "down.1.weight")
    assert group.norms == ("norms.0", "norms.1", "norms.2")
    assert output_change(model, group.members, shape) < 1e-4


def test_members_are_told_with_whom() -> None:
    verdicts = {v.parameter: v for v in train(Stream(), shape=(8, 5)).verdicts()}
    assert verdicts["down.0.weight"].scale_invariant is False
    assert verdicts["down.0.weight"].reason == (
        "scale-invariant only jointly with embed.weight, down.1.weight"
    )
    assert "a GELU" in verdicts["up.0.weight"].reason


@pytest.mark.parametrize(
    ("norm", "bias"), [(nn.RMSNorm, True), (nn.LayerNorm, True), (nn.Identity, False)]
)
def test_a_bias_left_in_or_a_missing_norm_ends_the_stream(
    norm: type[nn.Module], bias: bool
) -> None:
    def build(*_: int) -> nn.Module:
        return nn.Identity() if norm is nn.Identity else norm(8)

    assert groups(Stream(build, bias), (8, 5)) == []  # type: ignore[arg-type]


def test_a_member_that_the_optimizer_does_not_hold_ends_it() -> None:
    model = headed(Joined())
    model[0].right.weight.requires_grad_(False)
    assert groups(model) == []


def test_weights_in_a_row_are_each_invariant_and_no_group() -> None:
    model = headed(
        nn.Sequential(
            nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        )
    )
    assert groups(model) == []


def test_a_long_list_of_partners_is_cut() -> None:
    group = JointGroup(("a", "b", "c", "d", "e"), 0.0, 8, (), "")
    assert group.others("b") == "a, c, d and 1 more"
