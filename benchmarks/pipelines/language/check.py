"""What can be wrong with token files, found before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification.check import check_options
from benchmarks.pipelines.language.dataset import TokenFileDataset
from benchmarks.pipelines.language.token_files import Tokens, read_meta

LOOKED_AT = 1 << 23
"""Tokens of a file in which the largest is looked for: all of a small file."""
STRETCHES = 256


def check_dataset(dataset_cfg: Mapping[str, Any]) -> None:
    """Check that a ``TokenFileDataset`` config can be built, by building it: nothing is read.

    Args:
        dataset_cfg: the ``dataset`` part of a dataloader's config.

    Raises:
        UsageError: an option missing or unknown, or what :class:`.TokenFileDataset` refuses; one
            line that says what to do.
    """
    check_options(dataset_cfg, TokenFileDataset)
    _build(dataset_cfg)
    read_meta(Path(dataset_cfg["data_root"]))


def check_model(dataset_cfg: Mapping[str, Any], model_cfg: Mapping[str, Any]) -> None:
    """Check that a ``GPT`` config has a place and an embedding for every token of a checked split.

    Of a large file only parts are looked at: its beginning, its end, and stretches between them.

    Args:
        dataset_cfg: the ``dataset`` part of a dataloader's config.
        model_cfg: the model's config.

    Raises:
        UsageError: model and data differ in ``block_size``, or a token is none of the model's.
    """
    if not {"block_size", "vocab_size"} <= model_cfg.keys():
        return  # building it says which is missing
    blocks, places = dataset_cfg["block_size"], model_cfg["block_size"]
    if blocks != places:
        raise UsageError(
            f"dataset.block_size={blocks}, but model.block_size={places}: a model with fewer "
            "positions cannot read the windows, one with more has some that are never trained; "
            "set model.block_size and that of both data sets to the same"
        )
    dataset, vocab_size = _build(dataset_cfg), model_cfg["vocab_size"]
    meta = read_meta(dataset.root)
    if meta is not None and meta.vocab_size > vocab_size:
        raise UsageError(
            f"{dataset.root} has {meta.vocab_size:,} tokens in its vocabulary "
            f"({meta.encoding}), but the model only {vocab_size:,}: set "
            f"model.vocab_size={meta.vocab_size}"
        )
    if (largest := largest_token(dataset.tokens)) >= vocab_size:
        raise UsageError(
            f"{dataset.root / dataset.split}.bin holds the token {largest:,}, but the model only "
            f"has 0 to {vocab_size - 1:,}: set model.vocab_size to that of the encoding"
        )


def check_same_encoding(train_cfg: Mapping[str, Any], val_cfg: Mapping[str, Any]) -> None:
    """Check that two checked splits are two files that mean the same by each token.

    Args:
        train_cfg: the ``dataset`` part of the training dataloader's config.
        val_cfg: the ``dataset`` part of the validation dataloader's config.

    Raises:
        UsageError: they read the same file, or their ``meta.json`` differ.
    """
    train, val = _build(train_cfg), _build(val_cfg)
    if train.root.samefile(val.root) and train.split == val.split:
        raise UsageError(
            f"training and validation both read {train.root / train.split}.bin: give "
            "train_dataloader.dataset.split and val_dataloader.dataset.split a file each"
        )
    metas = read_meta(train.root), read_meta(val.root)
    if None not in metas and metas[0] != metas[1]:
        raise UsageError(
            f"{train.root} and {val.root} differ in what their tokens mean ({train.root}/meta.json "
            f"and {val.root}/meta.json): take train.bin and val.bin of one folder"
        )


def largest_token(tokens: Tokens) -> int:
    """Return the largest token; of a large file, of stretches spread evenly over it."""
    if len(tokens) <= LOOKED_AT:
        return int(tokens.max())
    length = LOOKED_AT // STRETCHES
    begins = np.linspace(0, len(tokens) - length, STRETCHES).astype(np.int64)
    return max(int(tokens[begin : begin + length].max()) for begin in begins)


def _build(dataset_cfg: Mapping[str, Any]) -> TokenFileDataset:
    return TokenFileDataset(**{name: v for name, v in dataset_cfg.items() if name != "type"})
