"""OpenWebText as GPT-2's tokens, through the ``datasets`` library."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.errors import UsageError
from benchmarks.pipelines.demo_data.write_once import write_once
from benchmarks.pipelines.language.encodings import Gpt2
from benchmarks.pipelines.language.token_files import TOKEN, Tokens, write_meta, write_tokens

NAME = "Skylion007/openwebtext"
VAL_SHARE, SPLIT_SEED = 0.0005, 2357
"""nanoGPT's split, so that validation losses are of the same documents."""
SHARD = 10_000
"""Documents that a process encodes at a time."""


def prepare_openwebtext(folder: Path, workers: int) -> Path:
    """Write OpenWebText as token files: each document's tokens, then the one that ends a text.

    Processes encode shards into files of their own, which are then joined; in memory there is one
    document per process. What was not run: the download itself, which needs network. The split,
    the encoding by tiktoken and the joining were tried on small data sets of the library.

    Args:
        folder: to hold ``train.bin``, ``val.bin`` and ``meta.json``; appears under its name only
            when whole. One that is there already is left alone.
        workers: processes that download and encode.

    Returns:
        ``folder``.

    Raises:
        UsageError: a library is missing, or data or vocabulary cannot be downloaded.
    """
    return write_once(folder, partial(_write, workers))


def _write(workers: int, folder: Path) -> None:
    encoding = Gpt2()  # first: it is quick to fail
    documents = _load(workers)
    split = documents.train_test_split(test_size=VAL_SHARE, seed=SPLIT_SEED, shuffle=True)
    # forked, so that no process imports everything anew
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=forked) as pool:
        for name, part in (("train", split["train"]), ("val", split["test"])):
            _write_split(part, folder / f"{name}.bin", encoding, pool)
    write_meta(folder, encoding.meta)


def _load(workers: int) -> Any:
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise UsageError(
            "OpenWebText comes through the library datasets, which is not installed: "
            "pip install datasets"
        ) from error
    try:
        return datasets.load_dataset(NAME, split="train", num_proc=workers)
    except Exception as error:  # of its many ways to download
        line = " ".join(str(error).split())
        raise UsageError(
            f"the library datasets cannot load {NAME}: try where there is network, and with "
            f"datasets<4 where it refuses a loading script ({type(error).__name__}: {line[:200]})"
        ) from error


def _write_split(documents: Any, path: Path, encoding: Gpt2, pool: ProcessPoolExecutor) -> None:
    count = -(-len(documents) // SHARD)
    parts = [path.with_suffix(f".{index}") for index in range(count)]
    shards = (documents.shard(count, index, contiguous=True) for index in range(count))
    written = pool.map(_write_shard, shards, parts, repeat(encoding))
    lengths = list(track(written, f"encoding {path.name}", total=count))
    whole = np.memmap(path, dtype=TOKEN, mode="w+", shape=(sum(lengths),))
    place = 0
    for part, length in zip(parts, lengths, strict=True):
        whole[place : place + length] = np.memmap(part, dtype=TOKEN, mode="r")
        place += length
        part.unlink()
    whole.flush()


def _write_shard(documents: Any, path: Path, encoding: Gpt2) -> int:
    return write_tokens(path, _encoded(documents, encoding))


def _encoded(documents: Any, encoding: Gpt2) -> Iterator[Tokens]:
    end = np.array([encoding.end_of_text], dtype=np.uint16)
    for document in documents:
        yield encoding.encode(document["text"])
        yield end
