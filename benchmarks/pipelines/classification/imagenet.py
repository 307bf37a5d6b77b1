"""ImageNet's 1,000 classes in their standard order, and how many images the whole set has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmarks.errors import UsageError

IMAGENET_1K = "imagenet-1k"
IMAGES = {"train": 1_281_167, "val": 50_000}
"""Images of ILSVRC 2012 by the name of the split."""


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """List the WordNet ids of ImageNet's 1,000 classes; a class's label is its place in the list.

    Every published 1,000-class network has its outputs in this order, that of the sorted ids.
    Takes timm's list.

    Raises:
        UsageError: timm is not installed.
    """
    try:
        from timm.data import ImageNetInfo
    except ImportError as error:
        raise UsageError(
            f"dataset.classes='{IMAGENET_1K}' takes the list of classes from timm ({error}): "
            "pip install timm, or leave the option out to number the class folders as they are"
        ) from error
    return tuple(ImageNetInfo(IMAGENET_1K).label_names())


def check_wnids(folder: Path, names: Sequence[str]) -> None:
    """Check that all class folders of a split are classes of ImageNet.

    Args:
        folder: the split.
        names: the names of its class folders.

    Raises:
        UsageError: one is not; with the first of them.
    """
    foreign = sorted(set(names).difference(imagenet_wnids()))
    if foreign:
        raise UsageError(
            f"{folder / foreign[0]} is none of ImageNet's 1,000 classes ({len(foreign)} of "
            f"{len(names)} folders are not): name class folders by wnid, such as n01440764, or "
            "leave classes='imagenet-1k' out of both data sets"
        )


def what_is_missing(folder: Path, classes: int, images: int) -> str | None:
    """Say in one line how a split falls short of ImageNet; None where it does not.

    Args:
        folder: the split, ``train`` or ``val``; of others only classes are compared.
        classes: how many class folders it has.
        images: how many images they hold.
    """
    all_classes, all_images = len(imagenet_wnids()), IMAGES.get(folder.name, images)
    if (classes, images) == (all_classes, all_images):
        return None
    return (
        f"{folder}: {classes:,} of ImageNet's {all_classes:,} classes, {images:,} of "
        f"{all_images:,} images: results are not ImageNet's"
    )
