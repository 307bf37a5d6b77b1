from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from benchmarks.pipelines.demo_data import digits
from benchmarks.pipelines.demo_data.digits import halve, load_digits, write_digits


@pytest.fixture(scope="module")
def split() -> tuple[digits.Bytes, digits.Bytes, digits.Bytes, digits.Bytes]:
    return load_digits()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("data") / "demo")


def test_split_is_balanced_and_shares_no_digit(split: tuple[digits.Bytes, ...]) -> None:
    train_images, train_labels, val_images, val_labels = split
    assert train_images.shape == (4000, 28, 28)
    assert val_images.shape == (1000, 28, 28)
    assert train_images.dtype == val_images.dtype == np.uint8
    assert np.bincount(train_labels).tolist() == [400] * 10
    assert np.bincount(val_labels).tolist() == [100] * 10
    assert not {i.tobytes() for i in train_images} & {i.tobytes() for i in val_images}


def test_split_is_always_the_same(split: tuple[digits.Bytes, ...]) -> None:
    assert all(np.array_equal(a, b) for a, b in zip(split, load_digits(), strict=True))


def test_halving_averages_by_area() -> None:
    image = np.array([[[0, 1, 255, 255], [1, 0, 255, 255], [0, 0, 7, 8], [0, 255, 8, 8]]], np.uint8)
    # 0.5 rounds up, and four bright pixels do not overflow
    assert halve(image).tolist() == [[[1, 255], [64, 8]]]


def test_files_hold_the_digits(folder: Path, split: tuple[digits.Bytes, ...]) -> None:
    for name, images, labels in (("train", *split[:2]), ("val", *split[2:])):
        written = ImageFolder(folder / name, loader=Image.open)
        assert written.classes == [str(digit) for digit in range(10)]
        assert written.targets == labels.tolist()
        pixels = np.stack([np.array(image) for image, _ in written])
        assert np.array_equal(pixels, halve(images))


def test_whole_set_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "load_digits", lambda: pytest.fail("wrote it again"))
    before = folder.stat().st_mtime_ns
    assert write_digits(folder.parent) == folder
    assert folder.stat().st_mtime_ns == before


def test_broken_off_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_at_val(folder: Path, images: digits.Bytes, labels: digits.Bytes) -> None:
        folder.mkdir(parents=True)
        if folder.name == "val":
            raise OSError("disk full")

    monkeypatch.setattr(digits, "_write_split", fail_at_val)
    with pytest.raises(OSError, match="disk full"):
        write_digits(tmp_path)
    assert not list(tmp_path.iterdir())
