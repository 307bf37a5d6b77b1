"""Text becomes token files and comes back; what cannot is one line and leaves nothing."""

from __future__ import annotations

import json
import re
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.__main__ import main
from benchmarks.errors import UsageError
from benchmarks.pipelines.language import prepare
from benchmarks.pipelines.language.encodings import Characters, cut_at_word_ends, encoding_of
from benchmarks.pipelines.language.prepare import prepare_text, split_at
from benchmarks.pipelines.language.token_files import Meta, read_meta
from tests.benchmarks.pipelines.language.token_folders import tokens_of
from tests.conftest import SHARED_DATA

TEXT = "Über den Wolken\r\nmuß die 自由 wohl\tgrenzenlos sein 🎈\n" * 20


def cut(text: str, size: int) -> list[str]:
    return [text[k : k + size] for k in range(0, len(text), size)]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def decoded(folder: Path) -> tuple[str, str]:
    meta = read_meta(folder)
    assert meta is not None
    decode = encoding_of(meta).decode
    return decode(tokens_of(folder, "train")), decode(tokens_of(folder, "val"))


@given(st.text("aÜ\n\r\0\ufeff自🎈", min_size=1))
def test_characters_come_back(text: str) -> None:
    encoding = Characters(text)
    tokens = encoding.encode(text)
    assert tokens.dtype == np.uint16
    assert encoding.meta.vocab_size == len(set(text)) == len(set(tokens.tolist()))
    assert encoding.decode(tokens) == text
    assert encoding_of(encoding.meta).decode(tokens) == text


def test_characters_are_numbered_in_order() -> None:
    assert Characters("cab").encode("abc").tolist() == [0, 1, 2]


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
@pytest.mark.parametrize("val_share", [0.1, 0.5])
def test_files_come_back_as_they_are(
    tmp_path: Path, chunk: int, val_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "CHUNK", chunk)
    files = [write(tmp_path / "one", TEXT[:301]), write(tmp_path / "two", TEXT[301:])]
    folder = prepare_text(files, tmp_path / "out", val_share=val_share)
    train, val = decoded(folder)
    assert train + val == TEXT
    assert len(train) == int((1 - val_share) * len(TEXT))
    assert len(train) == len(tokens_of(folder, "train"))
    meta = json.loads((folder / "meta.json").read_text())
    assert meta == dict(
        encoding="characters",
        vocab_size=len(set(TEXT)),
        characters="".join(sorted(set(TEXT))),
    )


def test_tinyshakespeare_comes_back(tmp_path: Path) -> None:
    source = SHARED_DATA / "tinyshakespeare.txt"
    if not source.is_file():
        pytest.skip("needs tinyshakespeare.txt of ../shared/data, which is not here")
    train, val = decoded(prepare_text([source], tmp_path / "out"))
    assert train + val == source.read_text()
    assert len(train) == 1_003_854  # nanoGPT's split


@given(st.text("ab \n"), st.integers(-3, 20), st.integers(1, 9))
def test_a_text_is_split_at_a_place(text: str, place: int, size: int) -> None:
    pieces = list(split_at(cut(text, size), place))
    first = max(place, 0)
    assert "".join(piece for behind, piece in pieces if not behind) == text[:first]
    assert "".join(piece for behind, piece in pieces if behind) == text[first:]
    assert [behind for behind, _ in pieces] == sorted(behind for behind, _ in pieces)


def test_a_long_text_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "CHUNK", 1 << 14)
    size = 1 << 23
    file = write(tmp_path / "long", "some words, and a line\n" * (size // 23))
    tracemalloc.start()
    try:
        prepare_text([file], tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 8


# --------------------------------------------------------------------------------- GPT-2

WORDS = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
"""How GPT-2 parts a text before it pairs bytes, as far as Python's ``re`` can say it."""


class Words:
    """Stands in for GPT-2's encoding, which is downloaded: a number for every word."""

    meta = Meta("gpt2", 50257)

    def encode(self, text: str) -> np.ndarray:
        words = WORDS.findall(text)
        assert "".join(words) == text
        return np.array([zlib.crc32(word.encode()) % 50256 for word in words], dtype=np.uint16)

    def decode(self, tokens: np.ndarray) -> str:
        raise NotImplementedError


@given(st.text("ab' \n\t\r,1_é\u00a0\u2028s"), st.integers(1, 9))
def test_pieces_are_encoded_as_within_the_whole(text: str, size: int) -> None:
    pieces = list(cut_at_word_ends(cut(text, size)))
    assert "".join(pieces) == text
    assert all(pieces)
    tokens = [token for piece in pieces for token in Words().encode(piece)]
    assert tokens == Words().encode(text).tolist()


def test_control_cuts_anywhere_change_tokens() -> None:
    tokens = [token for piece in cut(TEXT, 7) for token in Words().encode(piece)]
    assert tokens != Words().encode(TEXT).tolist()


@pytest.mark.parametrize("chunk", [5, 10_000])
def test_gpt2_tokens_are_those_of_each_split(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "Gpt2", Words)
    monkeypatch.setattr(prepare, "CHUNK", chunk)
    folder = prepare_text([write(tmp_path / "text", TEXT)], tmp_path / "out", "gpt2", 0.25)
    place = int(0.75 * len(TEXT))
    for split, text in (("train", TEXT[:place]), ("val", TEXT[place:])):
        assert tokens_of(folder, split).tolist() == Words().encode(text).tolist()
    assert json.loads((folder / "meta.json").read_text()) == dict(encoding="gpt2", vocab_size=50257)


# -------------------------------------------------------------------------- the command


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "out"
    command = ["prepare", "text", str(write(tmp_path / "text", "abc" * 100)), "-o", str(out)]
    assert main([*command, "--val-share", "0.2"]) == 0
    said = "240 tokens to train with, 60 to validate with, vocab_size 3 (characters)"
    assert said in capsys.readouterr().out
    assert main(command) == 2
    assert f"{out} is there already: remove it" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["meta.json", "train.bin", "val.bin"]


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (b"\xff\xfe", [], "is not UTF-8 (invalid start byte)"),
        (b"", [], "too short for a train and a val split (0 characters)"),
        (b"a", [], "too short for a train and a val split (1 characters)"),
        (b"abc" * 9, ["--val-share", "1"], "--val-share 1.0 leaves a split empty"),
        (None, [], "cannot be read: No such file or directory"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    content: bytes | None,
    options: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "text"
    if content is not None:
        file.write_bytes(content)
    command = ["prepare", "text", str(file), "-o", str(tmp_path / "data" / "out"), *options]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    left = list((tmp_path / "data").iterdir()) if (tmp_path / "data").exists() else []
    assert not left


def test_more_characters_than_tokens_can_number() -> None:
    every = [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    with pytest.raises(UsageError, match=r"129,024 different characters, more than the 65,536"):
        Characters(every)


def test_gpt2_without_its_library_or_network_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meta: Any = Meta("gpt2", 50257)
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(UsageError, match="pip install tiktoken"):
        encoding_of(meta)

    class Offline:
        @staticmethod
        def get_encoding(name: str) -> None:
            raise OSError(f"no route\nto {name}")

    monkeypatch.setitem(sys.modules, "tiktoken", Offline)
    with pytest.raises(UsageError, match=r"cannot download GPT-2's vocabulary.*no route to gpt2"):
        encoding_of(meta)


def test_an_encoding_that_is_none_of_ours() -> None:
    with pytest.raises(UsageError, match="encoding 'words' is none of characters, gpt2"):
        encoding_of(Meta("words", 3))
