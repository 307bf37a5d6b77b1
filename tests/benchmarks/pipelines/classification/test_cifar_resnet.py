from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.pipelines.classification.cifar_resnet import cifar_resnet


def convs(network: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}


def test_default_has_nine_convs_two_of_them_projections() -> None:
    network = cifar_resnet(num_classes=10)
    assert len(convs(network)) == 9
    assert [name for name in convs(network) if "shortcut" in name] == [
        "stage2.0.shortcut.conv",
        "stage3.0.shortcut.conv",
    ]


def test_equal_widths_still_project_where_the_stride_is_two() -> None:
    network = cifar_resnet(num_classes=10, widths=(8, 8, 8))
    assert sum("shortcut" in name for name in convs(network)) == 2


def test_resnet20_has_19_convs_and_its_two_projections() -> None:
    network = cifar_resnet(num_classes=10, blocks_per_stage=3, widths=(16, 32, 64))
    assert len(convs(network)) == 19 + 2


@pytest.mark.parametrize("size", [14, 28, 32])
def test_stages_halve_the_image(size: int) -> None:
    network = cifar_resnet(num_classes=7, in_channels=1)
    features = network[:2](torch.randn(2, 1, size, size))
    for stage, expected in enumerate([size, -(-size // 2), -(-size // 4)]):
        features = network[2 + stage](features)
        assert features.shape[2:] == (expected, expected)
    assert network(torch.randn(2, 1, size, size)).shape == (2, 7)


def test_every_conv_is_scale_invariant_and_the_classifier_is_not() -> None:
    torch.manual_seed(0)
    network = cifar_resnet(num_classes=10, in_channels=1).double()
    images = torch.randn(16, 1, 14, 14, dtype=torch.float64)
    logits = network(images).detach()

    def change_when_scaled(weight: torch.Tensor) -> float:
        with torch.no_grad():
            weight.mul_(4)
            moved = network(images)
            weight.div_(4)
        return float((moved - logits).norm() / logits.norm())

    for name, conv in convs(network).items():
        assert conv.bias is None
        assert change_when_scaled(conv.weight) < 1e-3, name
    assert change_when_scaled(network.fc.weight) > 1
