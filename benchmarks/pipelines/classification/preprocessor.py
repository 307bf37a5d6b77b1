"""From the bytes of a batch to what the network sees, on the training device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS

from benchmarks.errors import UsageError


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """Moves a uint8 batch to the training device and normalises it there.

    A byte per pixel crosses the bus instead of four.

    Args:
        mean: mean of each channel, in units of 0–255 as elsewhere in MMEngine.
        std: standard deviation of each channel, in the same units.

    Raises:
        UsageError: mean and std differ in length, or a std is not positive.

    Example:
        ::

            data_preprocessor = dict(
                type='ImagePreprocessor',
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
            )
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(non_blocking=True)
        if len(mean) != len(std) or min(std) <= 0:
            raise UsageError(
                f"data_preprocessor: mean={list(mean)} and std={list(std)} do not fit: "
                "give one value per channel in each, every std above 0"
            )
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Normalise ``data['inputs']``.

        Args:
            data: a collated batch: ``inputs`` uint8 of shape (N, C, H, W), the rest as it is.
            training: of no effect; part of MMEngine's interface.

        Returns:
            The batch on the training device with ``inputs`` as float32.

        Raises:
            UsageError: the inputs are not uint8, for instance because a transform of the data set
                has normalised them already.
        """
        batch = self.cast_data(data)
        inputs = batch["inputs"]
        if inputs.dtype != torch.uint8:
            raise UsageError(
                f"ImagePreprocessor got {inputs.dtype} images, not torch.uint8: take ToDtype and "
                "Normalize out of the data set's transforms"
            )
        return {**batch, "inputs": (inputs.float() - self.mean) / self.std}
