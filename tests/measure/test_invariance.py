"""Verdicts on networks whose answer is known by construction."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from smd_hooks.measure import ScaleInvarianceObserver, Verdict
from smd_hooks.measure.invariance import BATCHES, PATIENCE


class Residual(nn.Module):
    """A conv that a norm follows, and one that is summed with its input first."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.summed = nn.Conv2d(4, 4, 1)
        self.after_sum = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after_sum(x + self.summed(torch.relu(self.norm(self.inside(x)))))


def observe(
    model: nn.Module,
    steps: int = BATCHES,
    loss: Callable[[Tensor], Tensor] = lambda out: (out.flatten(1).cos()).sum(),
    prepare: Callable[[nn.Module], object] = lambda model: None,
    size: int = 12,
) -> dict[str, Verdict]:
    torch.manual_seed(0)
    model.train()
    prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    observer = ScaleInvarianceObserver(model, optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(torch.randn(6, 4, size, size))).backward()
        optimizer.step()
    observer.detach()
    return {v.parameter: v for v in observer.verdicts()}


def test_convs_before_a_norm_are_invariant_and_a_summed_one_is_not() -> None:
    head = (nn.Flatten(), nn.Linear(4 * 144, 3))
    verdicts = observe(nn.Sequential(nn.Conv2d(4, 4, 1), Residual(), *head))
    inside = verdicts["1.inside.weight"]
    assert inside.scale_invariant is True
    assert inside.statistic is not None
    assert inside.statistic < 3e-6
    assert inside.reason == "normalized by 1.norm"
    assert inside.norms == ("1.norm",)
    assert verdicts["1.summed.weight"].scale_invariant is False
    assert "a sum with something else" in verdicts["1.summed.weight"].reason
    assert verdicts["3.weight"].scale_invariant is False
    assert verdicts["1.norm.weight"].reason == "gain or bias, not a weight matrix"


@pytest.mark.parametrize(
    ("norm", "invariant"),
    [
        (nn.BatchNorm2d(8), True),
        (nn.GroupNorm(2, 8), True),
        (nn.InstanceNorm2d(8), True),
        (nn.Identity(), False),
        (nn.Sigmoid(), False),
    ],
)
def test_every_norm_makes_its_conv_invariant(norm: nn.Module, invariant: bool) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), norm, nn.ReLU(), nn.Conv2d(8, 2, 3))
    verdict = observe(model)["0.weight"]
    assert verdict.scale_invariant is invariant
    assert ("normalized" in verdict.reason) is invariant


@pytest.mark.parametrize(
    "between",
    [nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.LeakyReLU(0.1), nn.Dropout(0.1)],
)
def test_positively_homogeneous_operations_may_stand_between(between: nn.Module) -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, bias=False), between, nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 2, 3)
    )
    verdict = observe(model)["0.weight"]
    assert (verdict.scale_invariant, verdict.reason) == (True, "normalized by 2")


def test_a_bias_that_the_norm_cancels_does_no_harm() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 2, 3))
    assert observe(model)["0.weight"].scale_invariant is True


def test_a_norm_in_eval_mode_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 2, 3))
    verdict = observe(model, prepare=lambda m: m[1].eval())["0.weight"]
    assert verdict.scale_invariant is False
    assert "BatchNorm is in eval mode" in verdict.reason
    assert verdict.norms == ()


def test_a_frozen_affine_norm_shifts() -> None:
    norm = torchvision.ops.FrozenBatchNorm2d(8)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), norm, nn.Tanh(), nn.Conv2d(8, 2, 3))
    verdict = observe(model)["0.weight"]
    assert verdict.scale_invariant is False
    assert "frozen affine norm" in verdict.reason


def test_frozen_and_forgotten_weights() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model[0].parameters(), lr=1e-3)
    observer = ScaleInvarianceObserver(model, optimizer)
    verdicts = {v.parameter: v for v in observer.verdicts()}
    assert verdicts["0.weight"].reason == "frozen (requires_grad=False)"
    assert verdicts["2.weight"].reason == "not handed to the optimizer"


def test_a_gradient_of_zero_is_unknown_not_invariant() -> None:
    """A zero-initialised last gain lets nothing through to the weights before it."""
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))
    verdict = observe(model, loss=lambda out: (out * 0).sum(), steps=PATIENCE)["0.weight"]
    assert verdict.scale_invariant is None
    assert "zero in every batch" in verdict.reason


def test_observing_ends_by_itself() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    observer = ScaleInvarianceObserver(model, optimizer)
    for step in range(BATCHES):
        assert observer.done is False, step
        optimizer.zero_grad()
        model(torch.randn(2, 4, 6, 6)).cos().sum().backward()
        optimizer.step()
    assert observer.done is True


def test_a_whole_torchvision_network() -> None:
    model = torchvision.models.resnet18(num_classes=5)
    model.conv1 = nn.Conv2d(4, 64, 7, stride=2, padding=3, bias=False)
    verdicts = observe(model, size=64)
    matrices = [v for v in verdicts.values() if v.is_matrix]
    assert {v.parameter for v in matrices if v.scale_invariant is not True} == {"fc.weight"}
    assert "the loss or the model's output" in verdicts["fc.weight"].reason
    assert verdicts["layer2.0.downsample.0.weight"].norms == ("layer2.0.downsample.1",)


def test_a_layer_norm_normalizes_the_whole_matrix() -> None:
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(4 * 36, 16, bias=False),
        nn.LayerNorm(16),
        nn.Tanh(),
        nn.Linear(16, 2),
    )
    verdicts = observe(model, size=6)
    assert verdicts["1.weight"].scale_invariant is True
    assert verdicts["4.weight"].scale_invariant is False


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ((nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8)), "scale-invariant only jointly with its bias"),
        (
            (nn.Conv2d(4, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)),
            "scale-invariant only jointly with its bias",
        ),
        ((nn.Conv2d(4, 8, 3, bias=False), nn.ReLU6(), nn.BatchNorm2d(8)), "Hardtanh"),
    ],
)
def test_what_certainly_ends_invariance_counts_before_gradients_show_it(
    layers: tuple[nn.Module, ...], reason: str
) -> None:
    """With a bias that starts at 0, or no saturated unit yet, early gradients are tangential."""

    def small(model: nn.Module) -> None:
        with torch.no_grad():
            model[0].weight.mul_(0.1)
            if model[0].bias is not None:
                model[0].bias.zero_()

    verdict = observe(nn.Sequential(*layers, nn.Tanh(), nn.Conv2d(8, 2, 3)), prepare=small)
    assert verdict["0.weight"].scale_invariant is False
    assert reason in verdict["0.weight"].reason


def test_a_bias_free_pointwise_conv_may_stand_between() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.Conv2d(4, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.Tanh(),
        nn.Conv2d(8, 2, 3),
    )
    verdicts = observe(model)
    for name in ("0.weight", "1.weight"):
        assert (verdicts[name].scale_invariant, verdicts[name].norms) == (True, ("2",))


def test_a_gate_is_named_as_a_product() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1, bias=False)
            self.gate = nn.Conv2d(4, 4, 1)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x) * torch.sigmoid(self.gate(x)))

    verdicts = observe(nn.Sequential(Gated(), nn.Tanh(), nn.Conv2d(4, 2, 3)))
    assert "Sigmoid" in verdicts["0.gate.weight"].reason or "sigmoid" in (
        verdicts["0.gate.weight"].reason
    )
    assert verdicts["0.gate.weight"].scale_invariant is False


def test_weights_that_one_norm_joins_are_not_invariant_alone() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = (nn.Conv2d(4, 4, 1, bias=False) for _ in range(2))
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.left(x) + self.right(x.cos()))

    verdicts = observe(nn.Sequential(Joined(), nn.Tanh(), nn.Conv2d(4, 2, 3)))
    for name in ("0.left.weight", "0.right.weight"):
        assert verdicts[name].scale_invariant is False
        assert "a sum with something else" in verdicts[name].reason
