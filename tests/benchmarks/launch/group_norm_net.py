"""A classifier whose batches may be split over processes: no BatchNorm in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from benchmarks.pipelines.classification.classifier import Classifier


class TwoArms(nn.Module):
    """Two convolutions that are scale-invariant only together, behind a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.right = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(2, channels)

    def forward(self, features: Tensor) -> Tensor:
        arms = self.left(features) + self.right(features.flip(3))
        return torch.relu(features + self.norm(arms))


@MODELS.register_module()
class GroupNormClassifier(Classifier):
    """A block that FSDP2 gathers by itself, and five channels, which two cannot share evenly."""

    @staticmethod
    def build_network(arch: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, bias=False),
            nn.GroupNorm(6, 6),
            nn.ReLU(),
            TwoArms(6),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 5, 3, bias=False),
            nn.GroupNorm(1, 5),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(20, num_classes),
        )
