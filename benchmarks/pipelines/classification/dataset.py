"""Images in ImageNet's folder layout, through torchvision's v2 transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DATASETS
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.errors import UsageError


def build_transforms(configs: Sequence[Mapping[str, Any]]) -> v2.Compose:
    """Build a chain of torchvision's v2 transforms that ends in a plain tensor.

    Args:
        configs: one mapping per transform: ``type``, its name in ``torchvision.transforms.v2``,
            and its options.

    Returns:
        A transform from a PIL image to a tensor of shape (C, H, W), uint8 unless a transform of
        the chain changes that.

    Raises:
        UsageError: unknown transform, or options it does not take.
    """
    steps = [_build_transform(config) for config in configs]
    return v2.Compose([*steps, v2.PILToTensor(), v2.ToPureTensor()])


def _build_transform(config: Mapping[str, Any]) -> v2.Transform:
    options = dict(config)
    name = options.pop("type", None)
    transform = getattr(v2, name, None) if isinstance(name, str) else name
    if not (isinstance(transform, type) and issubclass(transform, v2.Transform)):
        raise UsageError(
            f"transforms: {dict(config)} names no transform: set 'type' to the name of a class in "
            "torchvision.transforms.v2, such as 'RandomResizedCrop'"
        )
    try:
        return transform(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"transforms: {name} does not take {options}: {error}") from error


def read_image(path: str) -> Image.Image:
    """Decode an image file to RGB.

    Raises:
        RuntimeError: the file is missing, truncated or no image; one line that names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # what a broken file raises differs by format
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(f"cannot read image {path}: {reason}") from error


@DATASETS.register_module()
class ImageFolderDataset(Dataset[dict[str, Any]]):
    """Images at ``data_root/split/class/*``, labelled by the sorted order of the class folders.

    Args:
        data_root: folder of the data set.
        split: its part, ``'train'`` or ``'val'``.
        transforms: torchvision v2 transforms by name, see :func:`build_transforms`.
        label_noise: probability with which a label is replaced, at every draw anew, by one drawn
            uniformly from all classes. It keeps gradients from vanishing as training succeeds:
            the equilibrium of Wan et al. (*Spherical Motion Dynamics*, Theorems 1–3) is that of
            a steady gradient.

    Raises:
        UsageError: label_noise is no probability, or a transform can't be built.
        FileNotFoundError: no such folder, or no images in it; ``check_dataset`` says so in one
            line beforehand.

    Example:
        ::

            dataset = dict(
                type='ImageFolderDataset',
                data_root='data/imagenet',
                split='train',
                transforms=[dict(type='RandomResizedCrop', size=224)],
            )
    """

    def __init__(
        self,
        data_root: str,
        split: str,
        transforms: Sequence[Mapping[str, Any]],
        label_noise: float = 0.0,
    ) -> None:
        if not 0.0 <= label_noise <= 1.0:
            raise UsageError(f"dataset.label_noise={label_noise} is no probability: use 0 to 1")
        self.label_noise = label_noise
        self.images = ImageFolder(
            str(Path(data_root) / split), build_transforms(transforms), loader=read_image
        )

    @property
    def metainfo(self) -> dict[str, Any]:
        """The class names in the order of their labels, for MMEngine."""
        return {"classes": tuple(self.images.classes)}

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read, transform and label one image.

        Returns:
            ``inputs``, uint8 of shape (C, H, W), and ``label``, an int.

        Raises:
            RuntimeError: the image can't be read, see :func:`read_image`.
        """
        inputs, label = self.images[index]
        # torch's generator, which MMEngine seeds per run and per loader worker.
        if self.label_noise and torch.rand(()) < self.label_noise:
            label = int(torch.randint(len(self.images.classes), ()))
        return {"inputs": inputs, "label": label}
