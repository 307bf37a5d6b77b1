"""Windows of tokens out of a memory-mapped file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.errors import UsageError
from benchmarks.pipelines.language.token_files import Tokens, open_tokens, read_meta


@DATASETS.register_module()
class TokenFileDataset(Dataset[dict[str, Tensor]]):
    """Windows of ``block_size`` tokens of a token file, each with the tokens that come next.

    To train with, every item is a window at a random place, whatever its index; a pass has as
    many as fit beside each other. To validate with, items are the windows that lie beside each
    other, from the file's beginning. A file is read as far as its windows are asked for.

    Args:
        data_root: folder that holds ``train.bin`` and ``val.bin`` (raw uint16 tokens, as nanoGPT
            prepares them) and, if ours, ``meta.json``.
        split: ``'train'`` or ``'val'``.
        block_size: tokens of a window.
        windows: how many items there are at most; all that fit by default.

    Raises:
        UsageError: the file is missing, broken or shorter than a window, or an option is unusable.

    Example:
        ::

            dataset = dict(
                type='TokenFileDataset',
                data_root='data/openwebtext',
                split='train',
                block_size=1024,
            )
    """

    items = "sequences"
    """What figures such as items per second are of."""

    def __init__(
        self, data_root: str, split: str, block_size: int, windows: int | None = None
    ) -> None:
        for name, value in (("block_size", block_size), ("windows", windows)):
            if value is not None and value < 1:
                raise UsageError(f"dataset.{name}={value} is no number of them: give 1 or more")
        self.root, self.split, self.block_size = Path(data_root), split, block_size
        self._tokens: Tokens | None = None
        self._length = (len(self.tokens) - 1) // block_size
        if windows is not None:
            self._length = min(self._length, windows)

    @property
    def tokens(self) -> Tokens:
        """All tokens of the file, memory-mapped."""
        if self._tokens is None:
            self._tokens = open_tokens(self.root, self.split, self.block_size + 1)
        return self._tokens

    @property
    def metainfo(self) -> dict[str, Any]:
        """What the tokens mean, for MMEngine, which keeps it in checkpoints."""
        meta = read_meta(self.root)
        return {} if meta is None else asdict(meta)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapped file out: a copy in a new process would have all of it in memory."""
        return {**vars(self), "_tokens": None}

    def __len__(self) -> int:
        """Number of windows in a pass."""
        return self._length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Cut out one window.

        Returns:
            ``inputs`` and ``targets``, int64 of shape (block_size,); each target is the token
            that follows its input.
        """
        if not 0 <= index < self._length:
            raise IndexError(index)
        if self.split == "train":  # torch's generator, which is seeded anew for every draw
            begin = int(torch.randint(len(self.tokens) - self.block_size, ()))
        else:
            begin = index * self.block_size
        window = self.tokens[begin : begin + self.block_size + 1].astype(np.int64)
        whole = torch.from_numpy(window)
        return {"inputs": whole[:-1], "targets": whole[1:]}
