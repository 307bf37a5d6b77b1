"""Token files on disk: nanoGPT's layout, and beside it what the tokens mean.

A folder holds ``train.bin`` and ``val.bin``, raw little-endian uint16 tokens one after the other,
and ``meta.json``, which says how text became tokens. Folders that nanoGPT prepared have no
``meta.json``: they work, and nothing is known of their encoding. Its ``meta.pkl`` is never read,
for unpickling runs code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import UsageError

Tokens = NDArray[np.uint16]

TOKEN = np.dtype("<u2")
LARGEST_VOCABULARY = 1 << (8 * TOKEN.itemsize)
META = "meta.json"
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Meta:
    """What a folder's tokens mean.

    Attributes:
        encoding: ``'characters'`` or ``'gpt2'``.
        vocab_size: Number of tokens of the encoding, in use or not.
        characters: Of ``'characters'``: the character of each token, in order; else empty.
    """

    encoding: str
    vocab_size: int
    characters: str = ""


def open_tokens(root: Path, split: str, at_least: int) -> Tokens:
    """Map a split's tokens into memory; nothing is read yet.

    Args:
        root: The folder of token files.
        split: ``'train'`` or ``'val'``.
        at_least: How many tokens are needed.

    Returns:
        All tokens, read-only.

    Raises:
        UsageError: The split is none, its file is missing or no whole number of tokens, or it
            holds too few.
    """
    if split not in SPLITS:
        raise UsageError(f"dataset.split='{split}' is none of {', '.join(SPLITS)}")
    path = root / f"{split}.bin"
    if not path.is_file():
        raise UsageError(
            f"token file {path} is missing: set train_dataloader.dataset.data_root and "
            "val_dataloader.dataset.data_root, or make it by 'python -m benchmarks prepare text "
            f"FILE... -o {root}' (without FILE: of the text that is shipped) or 'python -m "
            f"benchmarks prepare openwebtext -o {root}'"
        )
    size = path.stat().st_size
    if size % TOKEN.itemsize:
        raise UsageError(
            f"token file {path} has {size:,} bytes, no whole number of {TOKEN.itemsize}-byte "
            "tokens: it is cut off or no token file; prepare it anew"
        )
    if (found := size // TOKEN.itemsize) < at_least:
        raise UsageError(
            f"token file {path} holds {found:,} tokens, fewer than the {at_least:,} of one window "
            "(block_size and the token after it): make block_size smaller, or give it more text"
        )
    return np.memmap(path, dtype=TOKEN, mode="r")


def write_tokens(path: Path, pieces: Iterable[Tokens]) -> int:
    """Write pieces one after the other, each as soon as it is there; return how many tokens."""
    count = 0
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece.astype(TOKEN, copy=False).tobytes())
            count += len(piece)
    return count


def read_meta(root: Path) -> Meta | None:
    """Read what a folder's tokens mean; None where it does not say.

    Raises:
        UsageError: ``meta.json`` is there, but is none.
    """
    path = root / META
    if not path.is_file():
        return None
    try:
        return Meta(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise UsageError(f"{path} cannot be read ({line}): prepare the folder anew") from error


def write_meta(root: Path, meta: Meta) -> None:
    """Write what a folder's tokens mean."""
    said = {key: value for key, value in asdict(meta).items() if value != ""}
    (root / META).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
