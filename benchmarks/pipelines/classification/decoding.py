"""Images decoded and augmented on the training device, instead of in the loader's processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any

import torch
from mmengine.registry import FUNCTIONS, MODELS
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import pil_to_tensor

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification.dataset import build_transforms
from benchmarks.pipelines.classification.preprocessor import ImagePreprocessor

JPEG_STARTS_WITH = bytes((0xFF, 0xD8, 0xFF))


@FUNCTIONS.register_module()
def collate_encoded(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put items of ``ImageFolderDataset(encoded=True)`` into a batch, for a loader's collate_fn.

    Args:
        items: ``inputs``, uint8 of shape (bytes,), of another length each, ``label``, ``path``.

    Returns:
        Lists of ``inputs`` and ``path``, and ``label``, int64 of shape (N,).
    """
    return {
        "inputs": [item["inputs"] for item in items],
        "label": torch.tensor([item["label"] for item in items]),
        "path": [item["path"] for item in items],
    }


def decode(
    files: Sequence[Tensor], paths: Sequence[str], device: torch.device | str
) -> list[Tensor]:
    """Decode image files to RGB on a device.

    JPEGs are decoded where they are needed: all of a batch at once by nvJPEG on a GPU, which
    rounds a few levels of 255 differently, and to PIL's very pixels on a CPU. PIL decodes
    everything else, and what nvJPEG refuses, on the CPU.

    Args:
        files: the files' bytes, uint8 of shape (bytes,), on the CPU.
        paths: where they come from, for messages.
        device: where the pixels are wanted.

    Returns:
        uint8 of shape (3, H, W) for each file, of any height and width, on the device.

    Raises:
        RuntimeError: a file is truncated or no image; one line that names it.
    """
    jpegs = [i for i, file in enumerate(files) if bytes(file[:3].tolist()) == JPEG_STARTS_WITH]
    images: dict[int, Tensor] = {}
    if jpegs:
        with suppress(RuntimeError):  # PIL, below, tells which is broken, or reads it all the same
            decoded = decode_jpeg([files[i] for i in jpegs], ImageReadMode.RGB, device)
            images.update(zip(jpegs, decoded, strict=True))
    return [
        images[i] if i in images else _decode_by_pil(file, path).to(device)
        for i, (file, path) in enumerate(zip(files, paths, strict=True))
    ]


def _decode_by_pil(file: Tensor, path: str) -> Tensor:
    try:
        with Image.open(BytesIO(file.numpy().tobytes())) as image:
            return pil_to_tensor(image.convert("RGB"))
    except Exception as error:  # what a broken file raises differs by format
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(f"cannot read image {path}: {reason}") from error


@MODELS.register_module()
class DecodingPreprocessor(ImagePreprocessor):
    """Decodes, transforms and normalises a batch on the training device.

    For loaders that cannot keep up with a GPU, see ``python -m benchmarks speed input``: their
    processes only read files. Transforms draw from torch's generator in the training process,
    per image as in a loader: give each rank a seed of its own, or all draw the same. Transforms
    that compute pixel values, such as resizing, round some of them differently from PIL.

    Args:
        train_transforms: torchvision v2 transforms by name, see :func:`.dataset.build_transforms`;
            they must leave all images in one size.
        val_transforms: likewise, for validation.
        mean: mean of each channel, in units of 0–255.
        std: standard deviation of each channel, in the same units.

    Raises:
        UsageError: a transform can't be built, or mean and std do not fit.

    Example:
        ::

            _base_ = ["./resnet50_goyal_8xb32-90e.py"]

            train_dataloader = dict(
                collate_fn=dict(type="collate_encoded"), dataset=dict(encoded=True, transforms=[])
            )
            val_dataloader = dict(
                collate_fn=dict(type="collate_encoded"), dataset=dict(encoded=True, transforms=[])
            )
            model = dict(
                data_preprocessor=dict(
                    type="DecodingPreprocessor",
                    train_transforms=[
                        dict(type="RandomResizedCrop", size=224),
                        dict(type="RandomHorizontalFlip"),
                    ],
                    val_transforms=[
                        dict(type="Resize", size=256),
                        dict(type="CenterCrop", size=224),
                    ],
                )
            )
            randomness = dict(diff_rank_seed=True)
    """

    def __init__(
        self,
        train_transforms: Sequence[Mapping[str, Any]],
        val_transforms: Sequence[Mapping[str, Any]],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(mean, std)
        self.train_transforms = build_transforms(train_transforms)
        self.val_transforms = build_transforms(val_transforms)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Turn files into a batch of images.

        Args:
            data: a batch as :func:`collate_encoded` leaves it.
            training: which of the transforms to apply.

        Returns:
            ``inputs``, float32 of shape (N, C, H, W), and ``label``, on the training device.

        Raises:
            RuntimeError: a file can't be decoded, see :func:`decode`.
            UsageError: the transforms leave images of different sizes.
        """
        rest = {name: value for name, value in data.items() if name != "path"}
        transform = self.train_transforms if training else self.val_transforms
        images = [transform(image) for image in decode(data["inputs"], data["path"], self.device)]
        sizes = {tuple(image.shape) for image in images}
        if len(sizes) > 1:
            one, other, *_ = sorted(sizes)
            raise UsageError(
                f"data_preprocessor.{'train' if training else 'val'}_transforms leave images of "
                f"shapes {one} and {other} in one batch: end them with a crop to one size"
            )
        return super().forward({**rest, "inputs": torch.stack(images)}, training)
