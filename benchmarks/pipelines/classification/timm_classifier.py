"""timm's classification networks as MMEngine models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification.classifier import Classifier


@MODELS.register_module()
class TimmClassifier(Classifier):
    """A classification model of timm by its name, for those that torchvision lacks.

    See :class:`~.classifier.Classifier` for the other arguments. timm is imported only when one is
    built.

    Example:
        ::

            model = dict(
                type='TimmClassifier',
                arch='deit_tiny_patch16_224',
                num_classes=1000,
                arch_options=dict(drop_path_rate=0.1),
                label_smoothing=0.1,
                mixing=dict(mixup=0.8, cutmix=1.0),
                data_preprocessor=dict(
                    type='ImagePreprocessor',
                    mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375],
                ),
            )
    """

    @staticmethod
    def build_network(arch: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
        """Build it; refused, too, where timm is missing."""
        try:
            import timm
        except ImportError as error:
            raise UsageError(
                "model.type='TimmClassifier' needs timm, which is not installed: pip install timm"
            ) from error
        if not timm.is_model(arch):
            raise UsageError(
                f"model.arch='{arch}' is no model of timm: use a name from timm.list_models(), "
                "such as 'deit_tiny_patch16_224'"
            )
        try:
            return timm.create_model(arch, pretrained=False, num_classes=num_classes, **options)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"model.arch_options={dict(options)} do not fit arch '{arch}': {error}"
            ) from error
