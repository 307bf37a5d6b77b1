"""Images in ImageNet's folder layout, through torchvision's v2 transforms."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification.imagenet import (
    IMAGENET_1K,
    check_wnids,
    imagenet_wnids,
    what_is_missing,
)

MOVES_PIXELS = (
    v2.CenterCrop,
    v2.Pad,
    v2.RandomCrop,
    v2.RandomHorizontalFlip,
    v2.RandomVerticalFlip,
)
"""Transforms that compute no new pixel values: on tensors they do what they do on PIL images."""

DRAWS_NOTHING = (v2.CenterCrop, v2.Grayscale, v2.Pad, v2.RGB, v2.Resize, v2.ToImage)
"""Transforms that give the same at every draw, and leave the random generator alone."""


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
    return _to_tensor([_build_transform(config) for config in configs])


def _to_tensor(steps: Sequence[v2.Transform]) -> v2.Compose:
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


def read_file(path: str) -> torch.Tensor:
    """Read an image file as it is.

    Returns:
        Its bytes, uint8 of shape (bytes,).

    Raises:
        RuntimeError: the file is missing or empty; one line that names it.
    """
    try:
        return torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"cannot read image {path}: {error}") from error


class _ImageNetFolder(ImageFolder):
    """Class folders named by wnid, labelled by ImageNet's standard index."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names, _ = super().find_classes(directory)
        check_wnids(Path(directory), names)
        wnids = imagenet_wnids()
        there = set(names)
        return list(wnids), {wnid: i for i, wnid in enumerate(wnids) if wnid in there}


def _warn_if_not_whole(folder: Path, images: ImageFolder) -> None:
    warning = what_is_missing(folder, len(images.class_to_idx), len(images))
    if warning:
        print_log(warning, "current", logging.WARNING)


@DATASETS.register_module()
class ImageFolderDataset(Dataset[dict[str, Any]]):
    """Images at ``data_root/split/class/*``, labelled by the sorted order of the class folders.

    With ``classes='imagenet-1k'`` a folder that falls short of ImageNet is said to do so in one
    warning when the set is built.

    Args:
        data_root: folder of the data set.
        split: its part, ``'train'`` or ``'val'``.
        transforms: torchvision v2 transforms by name, see :func:`build_transforms`.
        label_noise: probability with which a label is replaced, at every draw anew, by one drawn
            uniformly from all classes. It keeps gradients from vanishing as training succeeds:
            the equilibrium of Wan et al. (*Spherical Motion Dynamics*, Theorems 1–3) is that of
            a steady gradient.
        in_memory: read every image once, when the set is built, and keep it as the leading
            transforms that draw nothing (Grayscale, Resize, …) leave it. Batches are the same,
            bit by bit. For small sets: a byte per pixel and channel where the other transforms
            only move pixels, otherwise a PIL image each.
        classes: ``'imagenet-1k'`` labels each class folder, which must be a wnid of ImageNet's
            1,000 classes, by its standard index, whichever others are there. By default the
            folders are numbered as they are.
        encoded: hand on the files as they are, for :class:`.decoding.DecodingPreprocessor` to
            decode and transform them on the training device; its docstring has a config.

    Raises:
        UsageError: label_noise is no probability, a transform can't be built, encoded images are
            to be transformed or kept, classes is unknown, a class folder is none of ImageNet's,
            or timm, which has the list, is missing.
        RuntimeError: in_memory, and an image can't be read, see :func:`read_image`.
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
        in_memory: bool = False,
        classes: str | None = None,
        encoded: bool = False,
    ) -> None:
        if not 0.0 <= label_noise <= 1.0:
            raise UsageError(f"dataset.label_noise={label_noise} is no probability: use 0 to 1")
        if classes not in (None, IMAGENET_1K):
            raise UsageError(f"dataset.classes='{classes}': use '{IMAGENET_1K}' or leave it out")
        if encoded and (transforms or in_memory):
            raise UsageError(
                "dataset.encoded=True hands on files as they are: set its transforms=[] and "
                "in_memory=False, and give the transforms to model.data_preprocessor"
            )
        self.label_noise = label_noise
        self.encoded = encoded
        steps = [_build_transform(config) for config in transforms]
        folder = Path(data_root) / split
        kind = ImageFolder if classes is None else _ImageNetFolder
        self.images = kind(str(folder), _to_tensor(steps), loader=read_image)
        if classes is not None:
            _warn_if_not_whole(folder, self.images)
        if encoded:
            self.images.loader, self.images.transform = read_file, None
        if in_memory:
            self._keep_in_memory(steps)

    def _keep_in_memory(self, steps: Sequence[v2.Transform]) -> None:
        fixed = list(takewhile(lambda step: type(step) in DRAWS_NOTHING, steps))
        drawn = steps[len(fixed) :]
        if all(type(step) in MOVES_PIXELS for step in drawn):
            keep, draw = _to_tensor(fixed), v2.Compose(drawn) if drawn else None
        else:  # torchvision rounds differently on tensors: these stay as they are
            keep, draw = v2.Compose([v2.Identity(), *fixed]), _to_tensor(drawn)
        kept = {path: keep(read_image(path)) for path, _ in self.images.samples}
        self.images.loader, self.images.transform = kept.__getitem__, draw

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
            ``inputs``, uint8 of shape (C, H, W), and ``label``, an int. If encoded, ``inputs``
            are the file's bytes, uint8 of shape (bytes,), and ``path`` is its path.

        Raises:
            RuntimeError: the image can't be read, see :func:`read_image`.
        """
        inputs, label = self.images[index]
        # torch's generator, which MMEngine seeds per run and per loader worker.
        if self.label_noise and torch.rand(()).item() < self.label_noise:
            label = int(torch.randint(len(self.images.classes), ()))
        item = {"inputs": inputs, "label": label}
        return {**item, "path": self.images.samples[index][0]} if self.encoded else item
