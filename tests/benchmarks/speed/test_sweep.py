"""The sweep's timing, on few runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.speed import sweep
from benchmarks.speed.sweep import RUNS, report


def test_a_sweep_is_timed_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    assert main(["speed", "sweep", "--runs", "3", "--rounds", "2", "--json", str(figures)]) == 0
    told = capsys.readouterr().out
    assert "3 runs, one after the other" in told
    assert "≤" not in told  # the limit is for so many runs as it was set for
    measured = json.loads(figures.read_text())
    assert {what: len(rounds) for what, rounds in measured["seconds"].items()} == {
        "bare": 2,
        "sweep": 2,
        "again": 2,
    }
    assert all(seconds > 0 for rounds in measured["seconds"].values() for seconds in rounds)


def test_a_sweep_that_skips_runs_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_sweep", lambda folder, words: None)
    with pytest.raises(RuntimeError, match="0 of 2 runs finished"):
        sweep.measure(tmp_path, 2, 1)


@pytest.mark.parametrize(("swept", "word"), [(59.0, "holds"), (61.0, "FAILS")])
def test_what_counts_is_beside_the_processes(swept: float, word: str) -> None:
    seconds = {"bare": [10.0, 10.0, 30.0], "sweep": [swept, swept, 70.0], "again": [1.0] * 3}
    [line] = [line for line in report([], seconds, RUNS) if "beside" in line]
    assert line.endswith(f"≤ 50: {word} |")


def test_numbers_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", "sweep", "--runs", "0"]) == 2
    assert capsys.readouterr().err == "error: --runs 0: give 1 or more\n"
