"""What can be wrong with an image folder, found before anything is built."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchvision.datasets.folder import IMG_EXTENSIONS

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification.dataset import ImageFolderDataset, build_transforms


def check_dataset(dataset_cfg: Mapping[str, Any]) -> None:
    """Check that an ``ImageFolderDataset`` config can be built.

    Cheap on ImageNet: in each class folder the search ends at the first image.

    Args:
        dataset_cfg: the ``dataset`` part of a dataloader's config.

    Raises:
        UsageError: an option missing or unknown, data root or split missing, no class folders,
            one without images, or a transform that can't be built; one line that says what to do.
    """
    _check_options(dataset_cfg)
    folder = _split_folder(dataset_cfg)
    if not folder.parent.is_dir():
        raise UsageError(
            f"data root {folder.parent} is no folder: point train_dataloader.dataset.data_root and "
            "val_dataloader.dataset.data_root at one that holds train/ and val/"
        )
    if not folder.is_dir():
        raise UsageError(
            f"data root {folder.parent} has no folder '{folder.name}': "
            "put one folder of images per class into it"
        )
    classes = _class_names(folder)
    if not classes:
        raise UsageError(
            f"{folder} has no class folders: sort its images into one folder per class"
        )
    for name in classes:
        if not _holds_an_image(folder / name):
            raise UsageError(
                f"class folder {folder / name} holds no image ({', '.join(IMG_EXTENSIONS)}): "
                "add images or remove the folder"
            )
    build_transforms(dataset_cfg["transforms"])


def check_same_classes(train_cfg: Mapping[str, Any], val_cfg: Mapping[str, Any]) -> None:
    """Check that two checked splits have the same class folders.

    Labels are positions in the sorted list of class folders: one folder more on either side would
    shift them, and validation would silently compare different classes.

    Args:
        train_cfg: the ``dataset`` part of the training dataloader's config.
        val_cfg: the ``dataset`` part of the validation dataloader's config.

    Raises:
        UsageError: the class folders differ.
    """
    train, val = _split_folder(train_cfg), _split_folder(val_cfg)
    odd = sorted(set(_class_names(train)) ^ set(_class_names(val)))
    if odd:
        raise UsageError(
            f"{train} and {val} differ in {len(odd)} class folders, the first is '{odd[0]}': "
            "give both the same classes"
        )


def _check_options(dataset_cfg: Mapping[str, Any]) -> None:
    options = {name: value for name, value in dataset_cfg.items() if name != "type"}
    signature = inspect.signature(ImageFolderDataset)
    try:
        signature.bind(**options)
    except TypeError as error:
        raise UsageError(
            f"dataset: {error}; ImageFolderDataset takes {', '.join(signature.parameters)}"
        ) from error


def check_num_classes(dataset_cfg: Mapping[str, Any], num_classes: int) -> None:
    """Check that a model has an output for every class folder of a checked split.

    Args:
        dataset_cfg: the ``dataset`` part of a dataloader's config.
        num_classes: the model's ``num_classes``.

    Raises:
        UsageError: there are more class folders than outputs.
    """
    folder = _split_folder(dataset_cfg)
    found = len(_class_names(folder))
    if found > num_classes:
        raise UsageError(
            f"{folder} has {found} class folders, but the model only {num_classes} outputs: "
            f"set model.num_classes={found}"
        )


def _split_folder(dataset_cfg: Mapping[str, Any]) -> Path:
    return Path(dataset_cfg["data_root"]) / dataset_cfg["split"]


def _class_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _holds_an_image(folder: Path) -> bool:
    return any(
        name.lower().endswith(IMG_EXTENSIONS)
        for _, _, names in os.walk(folder, followlinks=True)
        for name in names
    )
