from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models import ResNet50_Weights

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification import ImageFolderDataset
from benchmarks.pipelines.classification.imagenet import (
    IMAGES,
    check_wnids,
    imagenet_wnids,
    what_is_missing,
)

WNIDS = ("n03445777", "n01440764", "n15075141")
NAMES = {"n01440764": "tench", "n03445777": "golf ball", "n15075141": "toilet tissue"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for label, wnid in enumerate(WNIDS):
        (tmp_path / "train" / wnid).mkdir(parents=True)
        for index in range(2):
            image = Image.new("RGB", (4, 4), (label, label, label))
            image.save(tmp_path / "train" / wnid / f"{index}.png")
    return tmp_path


def test_classes_are_in_the_order_of_published_networks() -> None:
    wnids = imagenet_wnids()
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in wnids)
    published = ResNet50_Weights.DEFAULT.meta["categories"]
    assert [published[wnids.index(wnid)] for wnid in WNIDS] == [NAMES[wnid] for wnid in WNIDS]


def test_labels_are_standard_whichever_classes_are_there(root: Path) -> None:
    dataset = ImageFolderDataset(str(root), "train", [], classes="imagenet-1k")
    of_image = {int(item["inputs"].unique()): item["label"] for item in dataset}
    assert of_image == {i: imagenet_wnids().index(wnid) for i, wnid in enumerate(WNIDS)}
    assert dataset.metainfo["classes"] == imagenet_wnids()
    # what must differ: folders numbered as they are
    plain = ImageFolderDataset(str(root), "train", [])
    assert {item["label"] for item in plain} == {0, 1, 2}


def test_label_noise_draws_from_all_thousand(root: Path) -> None:
    torch.manual_seed(0)
    noisy = ImageFolderDataset(str(root), "train", [], 1.0, classes="imagenet-1k")
    assert len({noisy[0]["label"] for _ in range(200)}) > 150


def test_a_part_of_imagenet_is_said_to_be_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, int]] = []
    monkeypatch.setattr(
        "benchmarks.pipelines.classification.dataset.print_log",
        lambda message, logger, level: said.append((message, level)),
    )
    ImageFolderDataset(str(root), "train", [], classes="imagenet-1k")
    ImageFolderDataset(str(root), "train", [])
    ((message, level),) = said
    assert level == logging.WARNING
    assert message == (
        f"{root / 'train'}: 3 of ImageNet's 1,000 classes, 6 of 1,281,167 images: "
        "results are not ImageNet's"
    )


def test_all_of_imagenet_is_passed_over_in_silence() -> None:
    for split, images in IMAGES.items():
        assert what_is_missing(Path(split), 1000, images) is None
        assert f"{images - 1:,} of {images:,} images" in (
            what_is_missing(Path(split), 1000, images - 1) or ""
        )
        assert "999 of" in (what_is_missing(Path(split), 999, images) or "")
    assert what_is_missing(Path("minival"), 1000, 5) is None


def test_a_folder_that_is_no_class_of_imagenet_is_named() -> None:
    check_wnids(Path("train"), WNIDS)
    with pytest.raises(UsageError, match="train/n00000001 is none of ImageNet's 1,000 classes"):
        check_wnids(Path("train"), [*WNIDS, "n00000001", "wasp"])


def test_unknown_lists_of_classes_are_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="classes='imagenet': use 'imagenet-1k'"):
        ImageFolderDataset(str(root), "train", [], classes="imagenet")


def test_without_timm_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.data", None)
    imagenet_wnids.cache_clear()
    with pytest.raises(UsageError, match="pip install timm"):
        imagenet_wnids()
    monkeypatch.undo()
    assert len(imagenet_wnids()) == 1000


@pytest.mark.slow
def test_imagenette_has_imagenets_labels(shared_data: Path) -> None:
    dataset = ImageFolderDataset(
        str(shared_data / "imagenette128"), "val", [], classes="imagenet-1k"
    )
    labels = {label for _, label in dataset.images.samples}
    assert labels == {0, 217, 482, 491, 497, 566, 569, 571, 574, 701}
