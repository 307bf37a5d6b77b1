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
from benchmarks.pipelines.classification.imagenet import IMAGENET_1K, check_wnids, imagenet_wnids


def check_dataset(dataset_cfg: Mapping[str, Any]) -> None:
    """Check that an ``ImageFolderDataset`` config can be built.

    Cheap on ImageNet: in each class folder the search ends at the first image.

    Args:
        dataset_cfg: the ``dataset`` part of a dataloader's config.

    Raises:
        UsageError: an option missing or unknown, data root or split missing, no class folders,
            one without images or, with ``classes='imagenet-1k'``, none of ImageNet's, or a
            transform that can't be built; one line that says what to do.
    """
    check_options(dataset_cfg, ImageFolderDataset)
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
        raise UsageError(f"{folder} has no class folders: {_how_to_sort(dataset_cfg)}")
    if _is_imagenet(dataset_cfg):
        check_wnids(folder, classes)
    for name in classes:
        if not _holds_an_image(folder / name):
            raise UsageError(
                f"class folder {folder / name} holds no image ({', '.join(IMG_EXTENSIONS)}): "
                "add images or remove the folder"
            )
    build_transforms(dataset_cfg["transforms"])


def check_same_classes(train_cfg: Mapping[str, Any], val_cfg: Mapping[str, Any]) -> None:
    """Check that two checked splits have the same class folders, labelled in the same way.

    Labels are positions in the sorted list of class folders: one folder more on either side would
    shift them, and validation would silently compare different classes. With
    ``classes='imagenet-1k'`` nothing shifts, but a class that is trained and not validated, or the
    other way round, makes an accuracy that is not of the classes trained.

    Args:
        train_cfg: the ``dataset`` part of the training dataloader's config.
        val_cfg: the ``dataset`` part of the validation dataloader's config.

    Raises:
        UsageError: the class folders differ, or only one split has ``classes='imagenet-1k'``.
    """
    if _is_imagenet(train_cfg) != _is_imagenet(val_cfg):
        raise UsageError(
            "classes='imagenet-1k' stands in one of train_dataloader.dataset and "
            "val_dataloader.dataset only: labels would differ; give it to both or to none"
        )
    train, val = _split_folder(train_cfg), _split_folder(val_cfg)
    odd = sorted(set(_class_names(train)) ^ set(_class_names(val)))
    if odd:
        raise UsageError(
            f"{train} and {val} differ in {len(odd)} class folders, the first is '{odd[0]}': "
            "give both the same classes"
        )


def check_other_images(train_cfg: Mapping[str, Any], val_cfg: Mapping[str, Any]) -> None:
    """Check that two checked data sets do not read the same images.

    Args:
        train_cfg: the ``dataset`` part of the training dataloader's config.
        val_cfg: the ``dataset`` part of the validation dataloader's config.

    Raises:
        UsageError: they do; accuracies would be those of the images trained on.
    """
    train, val = _split_folder(train_cfg), _split_folder(val_cfg)
    if train.samefile(val):
        raise UsageError(
            f"training and validation both read {train}: give train_dataloader.dataset.split and "
            "val_dataloader.dataset.split (or data_root) a folder each"
        )


def check_options(dataset_cfg: Mapping[str, Any], dataset_class: type) -> None:
    """Check that a data set of our own is given what it takes.

    Args:
        dataset_cfg: the ``dataset`` part of a dataloader's config.
        dataset_class: the class that its ``type`` names.

    Raises:
        UsageError: an option is missing or unknown.
    """
    options = {name: value for name, value in dataset_cfg.items() if name != "type"}
    signature = inspect.signature(dataset_class)
    try:
        signature.bind(**options)
    except TypeError as error:
        taken = ", ".join(signature.parameters)
        raise UsageError(f"dataset: {error}; {dataset_class.__name__} takes {taken}") from error


def check_num_classes(dataset_cfg: Mapping[str, Any], num_classes: int) -> None:
    """Check that a model has an output for every label of a checked split.

    Args:
        dataset_cfg: the ``dataset`` part of a dataloader's config.
        num_classes: the model's ``num_classes``.

    Raises:
        UsageError: there are more classes than outputs.
    """
    if _is_imagenet(dataset_cfg):
        if num_classes < len(imagenet_wnids()):
            raise UsageError(
                f"classes='imagenet-1k' has 1,000 labels, but the model only {num_classes} "
                "outputs: set model.num_classes=1000, or leave the option out of both data sets "
                "to number the class folders as they are"
            )
        return
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


def _is_imagenet(dataset_cfg: Mapping[str, Any]) -> bool:
    return dataset_cfg.get("classes") == IMAGENET_1K


def _how_to_sort(dataset_cfg: Mapping[str, Any]) -> str:
    if _is_imagenet(dataset_cfg) and dataset_cfg["split"] == "val":
        return (
            "ImageNet's validation archive is flat, its labels come with the development kit; "
            "torchvision.datasets.ImageNet(root, 'val') sorts the images into a folder per wnid "
            "from ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz in root"
        )
    return "sort its images into one folder per class"


def _holds_an_image(folder: str | os.PathLike[str]) -> bool:
    """Whether there is one at any depth; lists no more of a folder than it takes to find one."""
    deeper = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                deeper.append(entry.path)
            elif entry.name.lower().endswith(IMG_EXTENSIONS):
                return True
    return any(map(_holds_an_image, deeper))
