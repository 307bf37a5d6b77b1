"""Classification networks as MMEngine models: what they share, and torchvision's."""

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
from benchmarks.pipelines.classification.mixing import build_mixing


class Classifier(BaseModel):
    """A network from images to logits, trained with cross-entropy.

    Args:
        arch: name of the network, see :meth:`build_network`.
        num_classes: number of classes.
        data_preprocessor: config of the preprocessor, see :class:`ImagePreprocessor`.
        arch_options: further arguments of the network's constructor.
        label_smoothing: share of the target spread evenly over all classes.
        mixing: how training mixes the images of a batch, see :func:`.mixing.build_mixing`.
        channels_last: keep activations and convolution weights in NHWC order, faster on GPUs with
            mixed precision.
        init_cfg: MMEngine's initialisation config, applied on top of the network's own.

    Raises:
        UsageError: there is no such network, or it does not take its options; or the mixing does
            not.
    """

    def __init__(
        self,
        arch: str,
        num_classes: int,
        data_preprocessor: dict[str, Any],
        arch_options: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
        mixing: Mapping[str, float] | None = None,
        channels_last: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.network = self.build_network(arch, num_classes, arch_options or {})
        self.label_smoothing = label_smoothing
        self.mixing = build_mixing(num_classes, mixing) if mixing else None
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    @staticmethod
    def build_network(arch: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
        """Build a randomly initialised network; nothing is downloaded.

        Args:
            arch: its name.
            num_classes: number of logits.
            options: further arguments of its own constructor.

        Returns:
            A network from images (N, C, H, W) to logits (N, num_classes).

        Raises:
            UsageError: there is no such network, or it does not take these options.
        """
        raise NotImplementedError

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
            cross-entropy, in training of mixed images if there is a mixing. ``'predict'``: for
            each image ``dict(logits=..., label=...)`` of shapes (num_classes,) and (), for
            :class:`TopKAccuracy`.

        Raises:
            ValueError: unknown mode, or no label where one is needed.
        """
        if mode not in ("tensor", "loss", "predict"):
            raise ValueError(f"unknown mode '{mode}': use 'tensor', 'loss' or 'predict'")
        if mode != "tensor" and label is None:
            raise ValueError(f"mode '{mode}' needs labels")
        if mode == "loss" and self.mixing is not None and self.training:
            inputs, label = self.mixing(inputs, label)
        logits: Tensor = self.network(inputs.contiguous(memory_format=self.memory_format))
        if mode == "tensor" or label is None:
            return logits
        if mode == "loss":
            return {"loss": cross_entropy(logits, label, label_smoothing=self.label_smoothing)}
        return [{"logits": row, "label": target} for row, target in zip(logits, label, strict=True)]


@MODELS.register_module()
class TorchvisionClassifier(Classifier):
    """A classification model of torchvision by its name, or ``'cifar_resnet'``.

    See :class:`Classifier` for the other arguments.

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

    @staticmethod
    def build_network(arch: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
        """Build it; ones that return more than logits in training are refused, too."""
        known = torchvision.models.list_models(torchvision.models)
        if arch != "cifar_resnet" and arch not in known:
            raise UsageError(
                f"model.arch='{arch}' is no classification model of torchvision: use "
                "'cifar_resnet' or a name from "
                "torchvision.models.list_models(torchvision.models), such as 'resnet50'"
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
