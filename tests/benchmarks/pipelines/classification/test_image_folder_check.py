from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification.check import (
    check_dataset,
    check_num_classes,
    check_other_images,
    check_same_classes,
)


def config(root: Path, split: str = "train", **options: Any) -> dict[str, Any]:
    return dict(
        type="ImageFolderDataset", data_root=str(root), split=split, transforms=[], **options
    )


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(5):
                (folder / f"{index}.JPEG").touch()
    return tmp_path


def test_a_whole_set_passes(whole: Path) -> None:
    check_dataset(config(whole))
    check_dataset(config(whole, "val"))
    check_same_classes(config(whole), config(whole, "val"))


def test_images_may_lie_deeper(whole: Path) -> None:
    (whole / "train" / "cat" / "kittens").mkdir(parents=True)
    (whole / "train" / "cat" / "kittens" / "0.png").touch()
    check_dataset(config(whole))


def remove_root(root: Path) -> Path:
    return root / "elsewhere"


def put_a_file_in_place_of_the_root(root: Path) -> Path:
    (root / "file").touch()
    return root / "file"


def remove_the_split(root: Path) -> Path:
    (root / "train").rename(root / "training")
    return root


def flatten(root: Path) -> Path:
    (root / "train").rename(root / "classes")
    (root / "train").mkdir()
    (root / "train" / "0.JPEG").touch()
    return root


def empty_a_class(root: Path) -> Path:
    for image in (root / "train" / "bee").iterdir():
        image.unlink()
    (root / "train" / "bee" / "readme.txt").touch()
    return root


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove_root, "elsewhere is no folder: point train_dataloader.dataset.data_root"),
        (put_a_file_in_place_of_the_root, "file is no folder"),
        (remove_the_split, "has no folder 'train'"),
        (flatten, "train has no class folders: sort its images"),
        (empty_a_class, "bee holds no image"),
    ],
)
def test_damage_is_named_in_one_line(
    whole: Path, damage: Callable[[Path], Path], says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_dataset(config(damage(whole)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unknown_options_are_named(whole: Path) -> None:
    with pytest.raises(UsageError, match=r"unexpected keyword argument 'label_nose'; .* takes"):
        check_dataset(config(whole, label_nose=0.1))
    without_split = config(whole)
    del without_split["split"]
    with pytest.raises(UsageError, match="missing a required argument: 'split'"):
        check_dataset(without_split)


def test_unusable_transform_is_found(whole: Path) -> None:
    with pytest.raises(UsageError, match="Rezise"):
        check_dataset(config(whole) | dict(transforms=[dict(type="Rezise", size=8)]))


def test_splits_with_other_classes_are_refused(whole: Path) -> None:
    (whole / "val" / "bee").rename(whole / "val" / "wasp")
    with pytest.raises(UsageError, match="differ in 2 class folders, the first is 'bee'"):
        check_same_classes(config(whole), config(whole, "val"))


class Counted:
    """``os.scandir`` that counts what is listed of each folder."""

    def __init__(self) -> None:
        self.listed: Counter[str] = Counter()
        self._scandir = os.scandir

    @contextmanager
    def __call__(self, path: str | os.PathLike[str]) -> Iterator[Iterator[os.DirEntry[str]]]:
        with self._scandir(path) as entries:
            yield self._count(os.fspath(path), entries)

    def _count(self, path: str, entries: Iterable[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        for entry in entries:
            self.listed[path] += 1
            yield entry


def test_search_ends_at_the_first_image(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ant, bee = whole / "train" / "ant", whole / "train" / "bee"
    (ant / "more").mkdir()
    (ant / "more" / "0.JPEG").touch()
    for image in bee.iterdir():
        image.unlink()
    for index in range(3):
        (bee / f"{index}.txt").touch()
    (bee / "pages.jpg").mkdir()
    (bee / "pages.jpg" / "0.JPEG").touch()
    counted = Counted()
    monkeypatch.setattr(os, "scandir", counted)
    check_dataset(config(whole))
    assert 1 <= counted.listed[str(ant)] <= 2  # the folder in it may come first
    assert str(ant / "more") not in counted.listed
    assert counted.listed[str(bee)] == 4  # a control: here all had to be seen
    assert counted.listed[str(bee / "pages.jpg")] == 1


def test_a_folder_named_as_an_image_is_none(whole: Path) -> None:
    for image in (whole / "train" / "bee").iterdir():
        image.unlink()
    (whole / "train" / "bee" / "0.jpg").mkdir()
    with pytest.raises(UsageError, match="bee holds no image"):
        check_dataset(config(whole))


@pytest.mark.parametrize("link", [False, True])
def test_validation_on_the_training_images_is_refused(whole: Path, link: bool) -> None:
    check_other_images(config(whole), config(whole, "val"))
    if link:
        (whole / "test").symlink_to(whole / "train")
    with pytest.raises(UsageError, match=r"training and validation both read .*train: give"):
        check_other_images(config(whole), config(whole, "test" if link else "train"))


def test_more_classes_than_outputs_are_refused(whole: Path) -> None:
    found = len(list((whole / "train").iterdir()))
    check_num_classes(config(whole), found)
    with pytest.raises(UsageError, match=f"set model.num_classes={found}"):
        check_num_classes(config(whole), found - 1)


WNIDS = ("n03445777", "n01440764")
IMAGENET = dict(classes="imagenet-1k")


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in WNIDS:
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.JPEG").touch()
    return tmp_path


def test_two_of_imagenets_classes_pass(imagenet: Path) -> None:
    check_dataset(config(imagenet, **IMAGENET))
    check_same_classes(config(imagenet, **IMAGENET), config(imagenet, "val", **IMAGENET))
    check_num_classes(config(imagenet, **IMAGENET), 1000)


def test_a_foreign_class_folder_is_named(imagenet: Path) -> None:
    (imagenet / "train" / "n01440764").rename(imagenet / "train" / "tench")
    check_dataset(config(imagenet))
    with pytest.raises(UsageError, match=r"train/tench is none of .* \(1 of 2 folders are not\)"):
        check_dataset(config(imagenet, **IMAGENET))


def test_a_flat_validation_set_gets_its_own_advice(imagenet: Path) -> None:
    for folder in list((imagenet / "val").iterdir()):
        for image in folder.iterdir():
            image.rename(imagenet / "val" / f"ILSVRC2012_val_{folder.name}.JPEG")
        folder.rmdir()
    with pytest.raises(UsageError, match="val has no class folders: ImageNet's validation archive"):
        check_dataset(config(imagenet, "val", **IMAGENET))
    with pytest.raises(UsageError, match="val has no class folders: sort its images"):
        check_dataset(config(imagenet, "val"))


def test_labels_of_both_splits_come_from_the_same_list(imagenet: Path) -> None:
    with pytest.raises(UsageError, match="give it to both or to none"):
        check_same_classes(config(imagenet, **IMAGENET), config(imagenet, "val"))
    (imagenet / "val" / "n01440764").rename(imagenet / "val" / "n01443537")
    with pytest.raises(UsageError, match="differ in 2 class folders"):
        check_same_classes(config(imagenet, **IMAGENET), config(imagenet, "val", **IMAGENET))


def test_imagenets_labels_need_a_thousand_outputs(imagenet: Path) -> None:
    check_num_classes(config(imagenet), 2)
    with pytest.raises(UsageError, match=r"set model.num_classes=1000"):
        check_num_classes(config(imagenet, **IMAGENET), 999)
