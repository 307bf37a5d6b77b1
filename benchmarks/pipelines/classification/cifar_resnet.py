"""The small residual nets that He et al. train on CIFAR-10."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
) -> nn.Sequential:
    """A bias-free convolution that feeds a BatchNorm directly, hence scale-invariant."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
    )
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is a 1×1 projection where shapes differ."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(in_channels, out_channels, 3, stride)
        self.second = conv_bn(out_channels, out_channels, 3)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity() if same_shape else conv_bn(in_channels, out_channels, 1, stride)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        residual = self.second(self.first(features).relu())
        return (residual + self.shortcut(features)).relu()


def cifar_resnet(
    num_classes: int,
    blocks_per_stage: int = 1,
    widths: Sequence[int] = (10, 20, 20),
    in_channels: int = 3,
) -> nn.Sequential:
    """Build a residual net for small images: a stem, one stage per width, a linear classifier.

    Follows He et al., *Deep Residual Learning for Image Recognition* (2016), section 4.2, but for
    the shortcuts where stride or width changes: projections (their option B), not padding with
    zeros. Their ResNet-20 is ``blocks_per_stage=3, widths=(16, 32, 64)``. Every convolution is
    bias-free and feeds a BatchNorm directly; weights start as PyTorch's defaults.

    Args:
        num_classes: number of logits.
        blocks_per_stage: basic blocks in each stage, n in the paper's 6n+2 layers.
        widths: channels of each stage; every stage but the first halves height and width.
        in_channels: 3 for colour images, 1 for grey ones.

    Returns:
        A network from (N, in_channels, H, W) to logits (N, num_classes).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_bn(in_channels, widths[0], 3))
    layers["relu"] = nn.ReLU()
    channels = widths[0]
    for stage, width in enumerate(widths):
        blocks = []
        for block in range(blocks_per_stage):
            stride = 2 if stage > 0 and block == 0 else 1
            blocks.append(BasicBlock(channels, width, stride))
            channels = width
        layers[f"stage{stage + 1}"] = nn.Sequential(*blocks)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels, num_classes)
    return nn.Sequential(layers)
