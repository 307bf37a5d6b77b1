"""CIFAR-10's own files with fewer images, whose checksums torchvision is told."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10


def write_cifar(root: Path, patch: pytest.MonkeyPatch, per_file: int = 4) -> np.ndarray:
    """Write noise images below a data root.

    Returns:
        The training images, uint8 of shape (5 · per_file, 3, 32, 32); labels count up from 0 to 9
        and begin anew, in training and validation alike.
    """
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    numbers, written = np.random.default_rng(0), []

    def write(name: str, content: dict[str, object]) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(name: str, first: int) -> list[str]:
        pixels = numbers.integers(256, size=(per_file, 3072), dtype=np.uint8)
        written.append(pixels)
        labels = [(first + i) % 10 for i in range(per_file)]
        return [name, write(name, {"data": pixels, "labels": labels})]

    train = [batch(name, i * per_file) for i, (name, _) in enumerate(CIFAR10.train_list)]
    images = np.concatenate(written).reshape(-1, 3, 32, 32)
    meta = write("batches.meta", {"label_names": [f"class{i}" for i in range(10)]})
    patch.setattr(CIFAR10, "train_list", train)
    patch.setattr(CIFAR10, "test_list", [batch(name, 0) for name, _ in CIFAR10.test_list])
    patch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta})
    return images
