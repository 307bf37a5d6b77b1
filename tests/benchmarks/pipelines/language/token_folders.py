"""Folders of token files for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

VOCABULARY = 11


def write_folder(root: Path, train: int = 200, val: int = 61, vocabulary: int = VOCABULARY) -> Path:
    """Write random tokens as nanoGPT would, without ``meta.json``; the largest is in both."""
    root.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        tokens = numbers.integers(vocabulary, size=count, dtype=np.uint16)
        tokens[count // 2] = vocabulary - 1
        tokens.astype("<u2").tofile(root / f"{split}.bin")
    return root


def tokens_of(root: Path, split: str) -> np.ndarray:
    """Read a file as a whole."""
    return np.fromfile(root / f"{split}.bin", dtype="<u2").astype(np.int64)
