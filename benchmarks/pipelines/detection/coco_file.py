"""What a COCO annotation file must hold, found in little more time than it takes to load one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import UsageError

Entry = Mapping[str, Any]
Coco = Mapping[str, Sequence[Entry]]

IMAGES = {"instances_train2017.json": 118_287, "instances_val2017.json": 5_000}
"""Images of COCO 2017 by the name of the annotation file."""
PARTS = ("images", "annotations", "categories")
ADVICE = "give a COCO instances file (instances_*.json)"


def load_coco(ann_file: Path, annotation_keys: Sequence[str]) -> Coco:
    """Load an annotation file and check its form and what its ids refer to.

    Args:
        ann_file: the file.
        annotation_keys: what each annotation must have.

    Returns:
        Its parts ``images``, ``annotations`` and ``categories``, lists of dicts.

    Raises:
        UsageError: it is no JSON or not COCO's, an id stands twice, an annotation names an image
            or a category that is not listed, or a box is none; one line with file and entry.
    """
    try:
        coco = json.loads(ann_file.read_bytes())
    except ValueError as error:
        raise UsageError(f"annotation file {ann_file} is not JSON ({error}): {ADVICE}") from error
    if not isinstance(coco, dict):
        raise UsageError(
            f"annotation file {ann_file} holds a {type(coco).__name__}, not COCO's dict of images, "
            f"annotations and categories (a results file?): {ADVICE}"
        )
    needed = (("id", "file_name", "height", "width"), annotation_keys, ("id", "name"))
    for part, keys in zip(PARTS, needed, strict=True):
        _check_form(coco.get(part), part, keys, ann_file)
    try:
        _check_references(coco, ann_file)
    except TypeError as error:  # an id that is a list or a dict
        raise UsageError(f"annotation file {ann_file}: an id is no id ({error})") from error
    _check_boxes(coco["annotations"], ann_file)
    return coco


def what_is_missing(ann_file: Path, images: int) -> str | None:
    """Say in one line how a file named as one of COCO 2017's falls short of it, or None.

    Args:
        ann_file: the file.
        images: how many images it lists.
    """
    expected = IMAGES.get(ann_file.name, images)
    if images == expected:
        return None
    return f"{ann_file}: {images:,} of COCO's {expected:,} images: results are not COCO's"


def _check_form(entries: Any, part: str, keys: Iterable[str], ann_file: Path) -> None:
    if not isinstance(entries, list):
        raise UsageError(
            f"annotation file {ann_file} has no list '{part}', so it is not COCO format: {ADVICE}"
        )
    required = set(keys)
    for index, entry in enumerate(entries):
        if not (isinstance(entry, dict) and required <= entry.keys()):
            lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            raise UsageError(
                f"annotation file {ann_file}: {part}[{index}] lacks '{lacking[0]}', "
                f"so it is not COCO format: {ADVICE}"
            )


def _check_references(coco: Coco, ann_file: Path) -> None:
    """Of two entries with one id, pycocotools silently drops the first."""
    ids = {part: [entry["id"] for entry in coco[part]] for part in PARTS}
    for part, of_part in ids.items():
        index = _first_repeat(of_part)
        if index is not None:
            raise UsageError(
                f"annotation file {ann_file}: {part}[{index}] has the id {of_part[index]!r} of an "
                f"entry before it: number all {part} differently"
            )
    for key, part in (("image_id", "images"), ("category_id", "categories")):
        known = set(ids[part])
        referred = [annotation[key] for annotation in coco["annotations"]]
        if not known.issuperset(referred):
            index = next(i for i, value in enumerate(referred) if value not in known)
            raise UsageError(
                f"annotation file {ann_file}: annotations[{index}] has {key} {referred[index]!r}, "
                f"which none of its {part} has: mend it or remove the annotation"
            )


def _first_repeat(ids: Sequence[Any]) -> int | None:
    seen = set()
    for index, value in enumerate(ids):
        if value in seen:
            return index
        seen.add(value)
    return None


def _check_boxes(annotations: Sequence[Entry], ann_file: Path) -> None:
    """A box that is not finite ends in a loss that is not; a negative one is silently dropped."""
    boxes = [annotation["bbox"] for annotation in annotations]
    if are_boxes(boxes):
        return
    for index, box in enumerate(boxes):
        if not is_box(box):
            raise UsageError(
                f"annotation file {ann_file}: annotations[{index}] has bbox {box!r}, not four "
                "finite numbers x, y, width ≥ 0, height ≥ 0: mend it or remove the annotation"
            )


def is_box(box: Any) -> bool:
    """Whether a value from JSON is ``[x, y, width, height]``, finite and not negative in size."""
    if not (isinstance(box, list) and len(box) == 4):
        return False
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in box):
        return False
    return bool(box[2] >= 0 and box[3] >= 0)


def are_boxes(boxes: Sequence[Any]) -> bool:
    """Whether :func:`is_box` holds for all; may say no where it does, never yes where not."""
    try:
        array = np.array(boxes)
    except (ValueError, OverflowError):  # of different lengths
        return False
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "if":
        return False
    return bool(np.isfinite(array).all() and (array[:, 2:] >= 0).all())
