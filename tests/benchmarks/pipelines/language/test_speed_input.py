"""The input pipeline of a language model beside its step is said in sequences."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.speed.input import WHAT
from tests.benchmarks.pipelines.language.token_folders import write_folder

CONFIG = Path(__file__).parent / "configs" / "tiny.py"


def test_sequences_per_second(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_folder(tmp_path / "tokens")
    options = ["--cfg-options", f"train_dataloader.dataset.data_root={root}"]
    assert main(["speed", "input", str(CONFIG), "--batches", "1", *options]) == 0
    printed = capsys.readouterr().out
    assert "| what | sequences/s |" in printed
    assert "sequences/s delivered" in printed
    assert "- sequences per batch: 8; loader workers: 0" in printed
    assert all(what in printed for what in WHAT.values())
    assert "images" not in printed
