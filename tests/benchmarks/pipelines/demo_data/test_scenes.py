"""The digit scenes: what is in them, where it comes from, and that they stay the same."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO

from benchmarks.pipelines.demo_data import scenes
from benchmarks.pipelines.demo_data.digits import load_digits


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.write_scenes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=["train", "val"])
def split(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def coco(written: Path, split: str) -> COCO:
    return COCO(written / "annotations" / f"instances_{split}.json")


def canvas(written: Path, split: str, image: dict[str, object]) -> NDArray[np.uint8]:
    return cv2.imread(str(written / split / str(image["file_name"])), cv2.IMREAD_UNCHANGED)


def test_every_image_is_there_and_holds_digits(written: Path, split: str, coco: COCO) -> None:
    assert len(coco.imgs) == scenes.SCENES[split]
    assert len(list((written / split).iterdir())) == len(coco.imgs)
    for image in coco.imgs.values():
        assert canvas(written, split, image).shape == (image["height"], image["width"])
        assert coco.getAnnIds(imgIds=image["id"])


def test_the_categories_are_the_ten_digits_all_in_use(coco: COCO) -> None:
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list("0123456789")
    assert all(coco.getAnnIds(catIds=index) for index in coco.getCatIds())


def test_boxes_are_the_tightest_around_their_masks(coco: COCO) -> None:
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        tight = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert annotation["bbox"] == tight
        assert annotation["area"] == mask.sum()


def test_masks_cover_the_ink_and_nothing_else(written: Path, split: str, coco: COCO) -> None:
    """The same pixels for COCO as in the picture; masks of one scene never share one."""
    for image in coco.imgs.values():
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        covered = sum(coco.annToMask(annotation).astype(int) for annotation in annotations)
        pixels = canvas(written, split, image)
        assert np.max(covered) == 1
        assert pixels[covered == 1].min() >= scenes.INK


def test_the_digits_come_in_several_sizes(coco: COCO) -> None:
    heights = [annotation["bbox"][3] for annotation in coco.anns.values()]
    assert np.percentile(heights, 90) > 1.5 * np.percentile(heights, 10)


def test_val_scenes_are_made_of_val_digits_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bars in place of the val digits show up in val scenes, all of them, and in no others."""
    train_images, train_labels, val_images, val_labels = load_digits()
    marked = np.zeros_like(val_images)
    marked[:, 4:8, 4:24] = 255
    monkeypatch.setattr(scenes, "SCENES", {"train": 5, "val": 5})
    monkeypatch.setattr(
        scenes, "load_digits", lambda: (train_images, train_labels, marked, val_labels)
    )
    written = scenes.write_scenes(tmp_path)
    filled = {
        split: [
            annotation["area"] / (annotation["bbox"][2] * annotation["bbox"][3])
            for annotation in json.loads(
                (written / "annotations" / f"instances_{split}.json").read_text()
            )["annotations"]
        ]
        for split in ("train", "val")
    }
    # Bars fill their boxes, digits do not (but for a straight 1).
    assert min(filled["val"]) > 0.95
    assert np.median(filled["train"]) < 0.7


def test_writing_again_leaves_the_set_alone(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    assert scenes.write_scenes(written.parent) == written
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before
    assert list(written.parent.iterdir()) == [written]


def test_the_same_set_is_written_every_time(tmp_path: Path, written: Path) -> None:
    again = scenes.write_scenes(tmp_path)
    for path in written.rglob("*"):
        if path.is_file():
            assert (again / path.relative_to(written)).read_bytes() == path.read_bytes()


def test_a_broken_first_try_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(scenes, "_background", full_disk)
    with pytest.raises(OSError, match="No space left"):
        scenes.write_scenes(tmp_path)
    assert list(tmp_path.iterdir()) == []
