"""Pictures with the sizes of photographs, in the layouts of ImageNet and COCO."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PHOTO, SCENE = (500, 375), (640, 480)
"""Width and height of most of ImageNet's pictures and of COCO's."""
OBJECTS = 7
"""Objects per picture: COCO's average."""
GRAIN = 12.0
"""Standard deviation of the noise over smooth colours, of 255: files of about ImageNet's size."""


def write_photos(folder: Path, count: int) -> None:
    """Write so many pictures of two classes, ``train/<class>/<number>.jpeg``.

    Args:
        folder: What is ``data_root`` of ImageNet's configs.
        count: How many.
    """
    random = np.random.default_rng(0)
    for number in range(count):
        file = folder / "train" / f"class{number % 2}" / f"{number:05}.jpeg"
        file.parent.mkdir(parents=True, exist_ok=True)
        _photo(random, PHOTO).save(file, quality=90)


def write_scenes(folder: Path, count: int, classes: Sequence[str]) -> None:
    """Write so many pictures with seven objects each, as COCO's train2017.

    Args:
        folder: What is ``data_root`` of COCO's configs.
        count: How many.
        classes: The names of COCO's categories.
    """
    random, (width, height) = np.random.default_rng(0), SCENE
    pictures = folder / "train2017"
    pictures.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        name = f"{number:012}.jpg"
        _photo(random, SCENE).save(pictures / name, quality=90)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for _ in range(OBJECTS):
            w, h = random.uniform(0.1, 0.5, 2) * SCENE
            x, y = random.uniform(0, 1, 2) * (width - w, height - h)
            corners = [(x, y + h / 3), (x + w / 2, y), (x + w, y + h / 3), (x + w / 2, y + h)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(random.integers(len(classes))) + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h / 2,
                    "iscrowd": 0,
                    "segmentation": [[float(number) for corner in corners for number in corner]],
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    file = folder / "annotations" / "instances_train2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps(content), encoding="utf-8")


def _photo(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    colours = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(colours.resize(size, Image.Resampling.BICUBIC), float)
    grainy = smooth + random.normal(0, GRAIN, (*smooth.shape[:2], 1))
    return Image.fromarray(grainy.clip(0, 255).astype(np.uint8))
