"""Data sets that a replica is to be trained on, looked at before anything is built."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import UsageError


def number_of_classes(folder: Path) -> int:
    """Count the class folders of ``folder/train``.

    Raises:
        UsageError: ``folder`` has no ``train`` and ``val`` with the same class folders.
    """
    found = []
    for split in ("train", "val"):
        if not (folder / split).is_dir():
            raise UsageError(
                f"{folder} is no data set in a known layout: give one with train/<class>/ and "
                "val/<class>/, with annotations/instances_train*.json, or with train.bin"
            )
        found.append({entry.name for entry in (folder / split).iterdir() if entry.is_dir()})
    train, val = found
    if not train or train != val:
        odd = sorted(train ^ val)
        what = f"differ in class folders, such as '{odd[0]}'" if odd else "have no class folders"
        raise UsageError(f"{folder}: train and val {what}")
    return len(train)


def coco_files(folder: Path) -> dict[str, tuple[str, str]]:
    """Find annotations and images of ``train`` and ``val``, relative to the folder.

    Raises:
        UsageError: Not exactly one annotation file for each, or no folder of its images.
    """
    found = {}
    for split in ("train", "val"):
        files = sorted((folder / "annotations").glob(f"instances_{split}*.json"))
        if len(files) != 1:
            raise UsageError(
                f"{folder}/annotations must hold one instances_{split}*.json; it has {len(files)}"
            )
        images = files[0].stem.removeprefix("instances_")
        if not (folder / images).is_dir():
            raise UsageError(f"{files[0]} has no folder of images beside it: {folder / images}")
        found[split] = (f"annotations/{files[0].name}", f"{images}/")
    return found


def vocabulary(folder: Path) -> int | None:
    """Return how many tokens a folder of token files knows; None where it does not say.

    Raises:
        UsageError: Its ``meta.json`` cannot be read.
    """
    path = folder / "meta.json"
    if not path.is_file():
        return None
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} does not say vocab_size: {error!r}") from error


def image_side(transforms: Sequence[Mapping[str, Any]]) -> int:
    """Side in pixels of the images that a config crops, for data that comes larger.

    Raises:
        UsageError: It crops to no one size.
    """
    sides = [t["size"] for t in transforms if "Crop" in str(t.get("type")) and "size" in t]
    if not sides or not isinstance(sides[-1], int):
        raise UsageError("transforms crop to no one size: no folder of images can take their place")
    return int(sides[-1])
