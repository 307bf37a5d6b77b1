"""Token files from any text, in pieces: memory holds a few megabytes of it at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.errors import UsageError
from benchmarks.pipelines.demo_data.write_once import write_once
from benchmarks.pipelines.language.encodings import Characters, Encoding, Gpt2, cut_at_word_ends
from benchmarks.pipelines.language.token_files import write_meta, write_tokens

CHUNK = 1 << 20
"""Characters that are read at once."""
VAL_SHARE = 0.1


def prepare_text(
    files: Sequence[Path], folder: Path, tokens: str = "characters", val_share: float = VAL_SHARE
) -> Path:
    """Write text files as token files: their beginning to train with, the rest to validate with.

    Files are read twice, one after the other as if they were one. The folder appears under its
    name only when whole; one that is there already is left alone.

    Args:
        files: UTF-8 text.
        folder: to hold ``train.bin``, ``val.bin`` and ``meta.json``.
        tokens: ``'characters'``, each of the text's own, or ``'gpt2'``.
        val_share: the part of the characters that is for validation.

    Returns:
        ``folder``.

    Raises:
        UsageError: a file is missing or no UTF-8, a split would be empty, or GPT-2's vocabulary
            cannot be had; one line that says what to do.
    """
    if not 0.0 < val_share < 1.0:
        raise UsageError(f"--val-share {val_share} leaves a split empty: give more than 0, below 1")
    return write_once(folder, partial(_write, files, tokens, val_share))


def _write(files: Sequence[Path], tokens: str, val_share: float, folder: Path) -> None:
    length, alphabet = 0, set[str]()
    for chunk in read_chunks(files):
        length += len(chunk)
        alphabet.update(chunk)
    train = int(length * (1 - val_share))
    if not 0 < train < length:
        raise UsageError(
            f"the text is too short for a train and a val split ({length:,} characters): give more"
        )
    encoding: Encoding = Gpt2() if tokens == "gpt2" else Characters(alphabet)
    parts = split_at(read_chunks(files), train)
    for is_val, part in itertools.groupby(parts, key=lambda piece: piece[0]):
        pieces = cut_at_word_ends(text for _, text in part)
        write_tokens(folder / ("val.bin" if is_val else "train.bin"), map(encoding.encode, pieces))
    write_meta(folder, encoding.meta)


def read_chunks(files: Iterable[Path]) -> Iterator[str]:
    """Yield the text of files, line ends as they are.

    Raises:
        UsageError: A file cannot be opened or is no UTF-8.
    """
    for path in files:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise UsageError(f"text file {path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(
                f"text file {path} is not UTF-8 ({error.reason}): convert it, or leave it out"
            ) from error


def split_at(chunks: Iterable[str], place: int) -> Iterator[tuple[bool, str]]:
    """Yield a text's pieces, each with whether it lies behind the first ``place`` characters."""
    for chunk in chunks:
        before, after = chunk[: max(place, 0)], chunk[max(place, 0) :]
        if before:
            yield False, before
        if after:
            yield True, after
        place -= len(chunk)
