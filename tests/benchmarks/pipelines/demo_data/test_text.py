"""The demo's text: whole, plain, and split as said."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pipelines.demo_data import text
from benchmarks.pipelines.demo_data.text import TEXT, write_text
from benchmarks.pipelines.language.encodings import encoding_of
from benchmarks.pipelines.language.token_files import open_tokens, read_meta


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("data") / "demo")


def test_the_novel_is_all_that_is_shipped() -> None:
    novel = TEXT.read_text(encoding="ascii")
    assert novel.startswith("Persuasion\n\n\nby\n\nJane Austen\n\n(1818)\n")
    assert novel.endswith("\nFinis\n")
    assert 300_000 < len(novel) < 600_000
    assert "gutenberg" not in novel.lower()
    assert novel.count("\nChapter ") == 24
    about = (TEXT.parent / "README.md").read_text(encoding="utf-8")
    assert "public domain" in about
    assert "r-cran-janeaustenr" in about


def test_files_hold_the_novel(folder: Path) -> None:
    assert folder.name == "text"
    meta = read_meta(folder)
    assert meta is not None
    assert meta.encoding == "characters"
    train, val = (open_tokens(folder, split, 1) for split in ("train", "val"))
    decode = encoding_of(meta).decode
    novel = TEXT.read_text(encoding="ascii")
    assert decode(train) + decode(val) == novel
    assert len(train) == int(0.9 * len(novel))
    assert int(max(train.max(), val.max())) == meta.vocab_size - 1


def test_a_whole_set_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folder.stat().st_mtime_ns
    monkeypatch.setattr(text, "TEXT", Path("nowhere"))
    assert write_text(folder.parent) == folder
    assert folder.stat().st_mtime_ns == before
