"""torchvision's classification networks as MMEngine models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torchvision.models
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification.cifar_resnet import cifar_resnet


def build_network(arch: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """Build a randomly initialised network; nothing is downloaded.

    Args:
        arch: ``'cifar_resnet'`` or the name of a classification model of torchvision.
        num_classes: number of logits.
        options: further arguments of the network's own constructor.

    Returns:
        A network from images (N, C, H, W) to logits (N, num_classes).

    Raises:
        UsageError: there is no such network, it does not take these options, or it returns more
            than logits in training.
    """
    if arch != "cifar_resnet" and arch not in torchvision.models.list_models(torchvision.models):
        raise UsageError(
            f"model.arch='{arch}' is no classification model of torchvision: use 'cifar_resnet' or "
            "a name from torchvision.models.list_models(torchvision.models), such as 'resnet50'"
        )
    try:
        if arch == "cifar_resnet":
            return cifar_resnet(num_classes=num_classes, **options)
        network = torchvision.models.get_model(
            arch, weights=None, num_classes=num_classes, **options
        )
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"model.arch_options={dict(options)} do not fit arch '{arch}': {error}"
        ) from error
    if getattr(network, "aux_logits", False):
        raise UsageError(
            f"model.arch='{arch}' returns auxiliary logits in training: "
            "set model.arch_options=dict(aux_logits=False)"
        )
    return network


@MODELS.register_module()
class TorchvisionClassifier(BaseModel):
    """A torchvision network trained with cross-entropy.

    Args:
        arch: ``'cifar_resnet'`` or the name of a classification model of torchvision.
        num_classes: number of classes.
        data_preprocessor: config of the preprocessor, see :class:`ImagePreprocessor`.
        arch_options: further arguments of the network's constructor.
        label_smoothing: share of the target spread evenly over all classes.
        channels_last: keep activations and convolution weights in NHWC order, faster on GPUs with
            mixed precision.
        init_cfg: MMEngine's initialisation config, applied on top of torchvision's own.

    Raises:
        UsageError: see :func:`build_network`.

    Example:
        ::

            model = dict(
                type='TorchvisionClassifier',
                arch='resnet50',
                num_classes=1000,
                arch_options=dict(zero_init_residual=True),
                data_preprocessor=dict(
                    type='ImagePreprocessor',
                    mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375],
                ),
            )
    """

    def __init__(
        self,
        arch: str,
        num_classes: int,
        data_preprocessor: dict[str, Any],
        arch_options: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
        channels_last: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.network = build_network(arch, num_classes, arch_options or {})
        self.label_smoothing = label_smoothing
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def forward(
        self, inputs: Tensor, label: Tensor | None = None, mode: str = "tensor"
    ) -> Tensor | dict[str, Tensor] | list[dict[str, Tensor]]:
        """Run the network on a preprocessed batch.

        Args:
            inputs: float images of shape (N, C, H, W).
            label: class indices of shape (N,); needed for ``'loss'`` and ``'predict'``.
            mode: what to return, as MMEngine asks for it.

        Returns:
            ``'tensor'``: logits (N, num_classes). ``'loss'``: ``dict(loss=...)``, the mean
            cross-entropy. ``'predict'``: for each image ``dict(logits=..., label=...)`` of shapes
            (num_classes,) and (), for :class:`TopKAccuracy`.

        Raises:
            ValueError: unknown mode, or no label where one is needed.
        """
        logits: Tensor = self.network(inputs.contiguous(memory_format=self.memory_format))
        if mode == "tensor":
            return logits
        if label is None:
            raise ValueError(f"mode '{mode}' needs labels")
        if mode == "loss":
            return {"loss": cross_entropy(logits, label, label_smoothing=self.label_smoothing)}
        if mode == "predict":
            return [
                {"logits": row, "label": target} for row, target in zip(logits, label, strict=True)
            ]
        raise ValueError(f"unknown mode '{mode}': use 'tensor', 'loss' or 'predict'")
