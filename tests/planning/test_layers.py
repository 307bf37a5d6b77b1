"""Which weights can be scale-invariant, against what eight real training steps show."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, shufflenet_v2_x0_5
from torchvision.models.resnet import BasicBlock, ResNet

from benchmarks.pipelines.language import GPT
from smd_hooks.analysis.forecast.plan import Layers
from smd_hooks.measure.invariance import ScaleInvarianceObserver
from smd_hooks.planning.layers import EVAL_MODE, FROZEN, IDLE, NO_NORM, UNTRIED, judge_layers


def block(norm: Callable[[int], nn.Module], bias: bool = False) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=bias), norm(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(2, channels)


def net(norm: Callable[[int], nn.Module], bias: bool = False) -> nn.Sequential:
    return nn.Sequential(*block(norm, bias), nn.Linear(8, 4))


def observed(model: nn.Module) -> tuple[set[str], set[str]]:
    """Matrices found scale-invariant, and those that would be but for their norm's eps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, weight_decay=1e-3)
    observer = ScaleInvarianceObserver(model.train(), optimizer)
    torch.manual_seed(0)
    while not observer.done:
        optimizer.zero_grad()
        model(torch.randn(8, 3, 32, 32)).square().mean().backward()
        optimizer.step()
    observer.detach()
    verdicts = [v for v in observer.verdicts() if v.is_matrix]
    small = {v.parameter for v in verdicts if v.scale_invariant is False and not v.settled}
    return {v.parameter for v in verdicts if v.scale_invariant}, small


@pytest.mark.parametrize(
    "build",
    [
        lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10),
        lambda: mobilenet_v2(num_classes=10, width_mult=0.35),
        lambda: shufflenet_v2_x0_5(num_classes=10),
        lambda: net(nn.BatchNorm2d),
        lambda: net(nn.BatchNorm2d, bias=True),
        lambda: net(group_norm),
        lambda: net(group_norm, bias=True),
        lambda: net(nn.Identity),
    ],
    ids=["resnet", "mobilenet_v2", "shufflenet", "bn", "bn+bias", "gn", "gn+bias", "no norm"],
)
def test_same_weights_as_in_training(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = build()
    measured, small = observed(model)
    found = judge_layers(model)
    assert set(found.invariant) == measured | small
    assert len(small) <= 0.1 * found.matrices
    assert not found.unknown
    matrices = {n for n, p in build().named_parameters() if p.ndim > 1}
    assert found.matrices == len(matrices)


def reasons(layers: Layers) -> dict[str, str]:
    return {name: why for why, names in layers.others.items() for name in names}


def test_frozen_weights_and_norms_in_eval_mode() -> None:
    class NormEval(nn.Module):
        """As mmdet's norm_eval: train() leaves its norms in eval mode."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, bias=False),
                nn.BatchNorm2d(8),
            )  # fmt: skip
            self.body[0].weight.requires_grad_(False)

        def train(self, mode: bool = True) -> NormEval:
            super().train(mode)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    found = judge_layers(NormEval())
    assert found.verdict == "none"
    assert reasons(found) == {"body.0.weight": FROZEN, "body.2.weight": EVAL_MODE}


class Untraceable(nn.Module):
    """A head that computes with values, so that it does not run on tensors without content."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(4, 4), norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("norm", "verdict", "why"),
    [
        (nn.BatchNorm1d(4), "unknown", UNTRIED.format("head")),
        (nn.BatchNorm1d(4).eval(), "none", IDLE.format("head")),
        (nn.ReLU(), "none", NO_NORM),
    ],
)
def test_what_does_not_run_is_not_guessed(norm: nn.Module, verdict: str, why: str) -> None:
    model = Untraceable(norm)
    if not norm.training:
        norm.train = lambda mode=True: norm  # type: ignore[method-assign,assignment]
    found = judge_layers(model)
    assert found.verdict == verdict
    assert [*found.others, *found.unknown] == [why]


def test_a_conv_module_that_does_not_run_is_known_all_the_same() -> None:
    model = Untraceable(nn.Identity())
    model.head = nn.Sequential(
        ConvModule(4, 8, 3, norm_cfg=dict(type="BN")),
        ConvModule(8, 8, 3, norm_cfg=dict(type="GN", num_groups=2), bias=True),
        ConvModule(8, 8, 3, norm_cfg=dict(type="BN"), order=("norm", "conv", "act")),
    )
    found = judge_layers(model)
    assert found.invariant == ("head.0.conv.weight",)
    assert [*found.unknown.values()] == [("head.1.conv.weight", "head.2.conv.weight")]


class Detector(nn.Module):
    """Backbone, neck, a dense head, and a head on RoIs, as mmdet has them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
        self.neck = nn.Conv2d(8, 8, 1)
        self.bbox_head = nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), group_norm(8))
        self.roi_head = nn.ModuleDict({"bbox_head": BoxHead()})


class BoxHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.in_channels, self.roi_feat_size = 8, 7
        self.conv = nn.Conv2d(8, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc_cls = nn.Linear(8 * 25, 3)

    def forward(self, rois: Tensor) -> Tensor:
        return self.fc_cls(self.norm(self.conv(rois)).flatten(1))


def test_a_detector_part_by_part() -> None:
    found = judge_layers(Detector())
    assert set(found.invariant) == {
        "backbone.0.weight",
        "bbox_head.0.weight",
        "roi_head.bbox_head.conv.weight",
    }
    assert reasons(found) == {
        "neck.weight": NO_NORM,
        "roi_head.bbox_head.fc_cls.weight": NO_NORM,
    }


def test_no_weight_of_a_pre_norm_transformer() -> None:
    """It runs on tokens; every reason names what comes before a norm does."""
    model = GPT(vocab_size=11, block_size=8, layers=2, heads=2, width=8)
    layers = judge_layers(model)
    assert layers.invariant == ()
    assert layers.unknown == {}
    reason_of = {name: reason for reason, names in layers.others.items() for name in names}
    assert len(reason_of) == 2 + 2 * 4
    assert "attention" in reason_of["blocks.1.attention.qkv.weight"]
    assert "GELU" in reason_of["blocks.0.mlp.up.weight"]
    assert reason_of["blocks.0.mlp.down.weight"] == reason_of["embedding.token.weight"]
