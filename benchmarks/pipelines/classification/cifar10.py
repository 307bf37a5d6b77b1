"""CIFAR-10 through torchvision's v2 transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DATASETS
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR10

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification.check import check_options
from benchmarks.pipelines.classification.dataset import build_transforms

SPLITS = ("train", "val")


def check_dataset(dataset_cfg: Mapping[str, Any]) -> None:
    """Check that a ``Cifar10Dataset`` config can be built, by building it: about a second.

    Args:
        dataset_cfg: the ``dataset`` part of a dataloader's config.

    Raises:
        UsageError: an option missing or unknown, or what :class:`Cifar10Dataset` refuses; one line
            that says what to do.
    """
    check_options(dataset_cfg, Cifar10Dataset)
    Cifar10Dataset(**{name: value for name, value in dataset_cfg.items() if name != "type"})


@DATASETS.register_module()
class Cifar10Dataset(Dataset[dict[str, Any]]):
    """CIFAR-10's images, in memory: 50,000 to train with, 10,000 to validate with.

    Nothing is downloaded. ``data_root`` holds the folder ``cifar-10-batches-py`` as it is
    distributed; torchvision compares its checksums.

    Args:
        data_root: folder of the data set.
        split: ``'train'``, or ``'val'`` for what CIFAR-10 calls its test images.
        transforms: torchvision v2 transforms by name, see :func:`.dataset.build_transforms`.
        label_noise: probability with which a label is replaced, at every draw anew, by one drawn
            uniformly from all classes; what for, see :class:`~.dataset.ImageFolderDataset`.

    Raises:
        UsageError: the data are missing or broken, split or label_noise is none, or a transform
            can't be built.

    Example:
        ::

            dataset = dict(
                type='Cifar10Dataset',
                data_root='data/cifar10',
                split='train',
                transforms=[dict(type='RandomCrop', size=32, padding=4)],
            )
    """

    def __init__(
        self,
        data_root: str,
        split: str,
        transforms: Sequence[Mapping[str, Any]],
        label_noise: float = 0.0,
    ) -> None:
        if split not in SPLITS:
            raise UsageError(f"dataset.split='{split}' is none of {', '.join(SPLITS)}")
        if not 0.0 <= label_noise <= 1.0:
            raise UsageError(f"dataset.label_noise={label_noise} is no probability: use 0 to 1")
        self.label_noise = label_noise
        self.transform = build_transforms(transforms)
        source = _read(Path(data_root), train=split == "train")
        self.classes = tuple(source.classes)
        self.images: Tensor = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
        self.labels: list[int] = source.targets

    @property
    def metainfo(self) -> dict[str, Any]:
        """The class names in the order of their labels, for MMEngine."""
        return {"classes": self.classes}

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Transform and label one image.

        Returns:
            ``inputs``, uint8 of shape (3, 32, 32), and ``label``, an int.
        """
        inputs, label = self.transform(self.images[index]), self.labels[index]
        # torch's generator, which MMEngine seeds per run and per loader worker.
        if self.label_noise and torch.rand(()) < self.label_noise:
            label = int(torch.randint(len(self.classes), ()))
        return {"inputs": inputs, "label": label}


def _read(root: Path, train: bool) -> CIFAR10:
    folder = root / CIFAR10.base_folder
    get_it = (
        f"python -c \"from torchvision.datasets import CIFAR10; CIFAR10('{root}', download=True)\""
    )
    if not folder.is_dir():
        raise UsageError(
            f"data root {root} has no folder '{folder.name}': point "
            "train_dataloader.dataset.data_root and val_dataloader.dataset.data_root at one that "
            f"has, or get CIFAR-10 by {get_it}"
        )
    try:
        return CIFAR10(str(root), train=train)
    except RuntimeError as error:
        raise UsageError(
            f"{folder} lacks files, or their checksums are not CIFAR-10's: remove it and get it "
            f"anew by {get_it}"
        ) from error
