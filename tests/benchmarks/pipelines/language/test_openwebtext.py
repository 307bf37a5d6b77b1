"""OpenWebText's way onto disk, with stand-ins for the library, the download and the encoder."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.pipelines.language import openwebtext
from benchmarks.pipelines.language.token_files import Meta
from tests.benchmarks.pipelines.language.token_folders import tokens_of

END = 7


class Documents:
    """What the library's Dataset can do, as far as it is asked to."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[dict[str, str]]:
        return iter([{"text": text} for text in self.texts])

    def train_test_split(self, test_size: float, seed: int, shuffle: bool) -> dict[str, Documents]:
        assert (test_size, seed, shuffle) == (0.0005, 2357, True)  # nanoGPT's
        texts = random.Random(seed).sample(self.texts, len(self.texts))
        val = round(test_size * len(texts))
        return {"train": Documents(texts[val:]), "test": Documents(texts[:val])}

    def shard(self, num_shards: int, index: int, contiguous: bool) -> Documents:
        assert contiguous
        ends = np.linspace(0, len(self), num_shards + 1).astype(int)
        return Documents(self.texts[ends[index] : ends[index + 1]])


class Codes:
    """Stands in for GPT-2: a character's code is its token."""

    meta = Meta("gpt2", 50257)
    end_of_text = END

    def encode(self, text: str) -> np.ndarray:
        if text == "broken":
            raise OSError("disk full")
        return np.array([ord(letter) for letter in text], dtype=np.uint16)


TEXTS = [f"document {index}" + "…" * (index % 3) for index in range(4000)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the library is asked for."""
    calls: list[Any] = []

    def load_dataset(*args: Any, **options: Any) -> Documents:
        calls.append((args, options))
        return Documents(TEXTS)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(openwebtext, "Gpt2", Codes)
    monkeypatch.setattr(openwebtext, "SHARD", 300)
    return calls


def run(folder: Path) -> int:
    return main(["prepare", "openwebtext", "-o", str(folder), "--workers", "2"])


def test_every_document_is_there_in_order_and_ends(tmp_path: Path, asked: list[Any]) -> None:
    folder = tmp_path / "out"
    assert run(folder) == 0
    assert asked == [(("Skylion007/openwebtext",), {"split": "train", "num_proc": 2})]
    split = Documents(TEXTS).train_test_split(0.0005, 2357, True)
    assert len(split["test"]) == 2
    for name, part in (("train", split["train"]), ("val", split["test"])):
        wanted = [token for text in part.texts for token in (*map(ord, text), END)]
        assert tokens_of(folder, name).tolist() == wanted
    assert json.loads((folder / "meta.json").read_text()) == dict(encoding="gpt2", vocab_size=50257)
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", "train.bin", "val.bin"]


def test_what_breaks_off_leaves_nothing(
    tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "TEXTS", [*TEXTS[:500], "broken", *TEXTS[500:]])
    with pytest.raises(OSError, match="disk full"):
        run(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_no_network_and_no_library_are_one_line(
    tmp_path: Path,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def offline(*args: Any, **options: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub\n(at all)")

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", offline)
    assert run(tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "cannot load Skylion007/openwebtext: try where there is network" in error
    assert "Couldn't reach the Hub (at all)" in error
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert run(tmp_path / "out") == 2
    assert "pip install datasets" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_written_over(
    tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path) == 2
    assert f"{tmp_path} is there already" in capsys.readouterr().err
    assert main(["prepare", "openwebtext", "-o", str(tmp_path / "x"), "--workers", "0"]) == 2
    assert "--workers 0: give 1 or more" in capsys.readouterr().err
    assert not asked
