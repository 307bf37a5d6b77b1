from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks import trainings
from benchmarks.trainings import Training, train
from smd_hooks.analysis import agreement_table, load_runs
from smd_hooks.records import PlannedRun, RunState, read_suite, write_state
from tests.conftest import ROOT


def test_progress_is_read_off_the_newest_launch_of_this_training(tmp_path: Path) -> None:
    training = Training("run", "config.py", tmp_path / "run")
    assert training.progress() == (0, None)
    write_state(tmp_path / "run" / "20260101_000000", RunState("running", 5, 10))
    assert training.progress() == (5, 10)
    training._launched_at = time.time() + 1e6  # what an earlier training left does not count
    assert training.progress() == (0, None)


def test_failed_ones_are_told_apart_and_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(trainings, "POLL_SECONDS", 0.05)
    nowhere = Training("nowhere", str(tmp_path / "nowhere.py"), tmp_path / "nowhere")
    helped = Training("helped", "--help", tmp_path / "helped")
    assert train([nowhere, helped]) == [nowhere]
    assert (nowhere.returncode, helped.returncode) == (2, 0)
    assert "nowhere.py does not exist" in nowhere.last_words()
    assert sys.executable not in nowhere.last_words()
    planned = read_suite(tmp_path)
    assert planned["nowhere"].failed == nowhere.last_words()
    assert (planned["helped"].config, planned["helped"].failed) == ("--help", "")
    table = agreement_table(load_runs(tmp_path)).set_index("run")
    assert table.loc["nowhere", "verdict"] == f"failed: {nowhere.last_words()}"
    assert table["status"].to_dict() == {"helped": "missing", "nowhere": "failed"}


def test_an_interrupt_ends_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(trainings.time, "sleep", interrupt)
    training = Training("helped", "--help", tmp_path / "helped")
    with pytest.raises(KeyboardInterrupt):
        train([training])
    assert training.returncode is not None
    assert read_suite(tmp_path)["helped"].failed


class Instant(Training):
    """Ends as soon as it is looked at; counts how many run beside it."""

    running: ClassVar[set[str]] = set()
    started: ClassVar[list[tuple[str, int]]] = []

    def start(self) -> None:
        self.running.add(self.name)
        self.started.append((self.name, len(self.running)))

    @property
    def returncode(self) -> int | None:
        self.running.discard(self.name)
        return 0 if self.name in dict(self.started) else None


def test_so_many_run_at_a_time_and_the_suite_knows_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(Instant, "started", [])
    planned = PlannedRun("", experiment="first", role="plain", scale="by 2", options={"lr": 0.1})
    runs = [Instant(str(n), "c.py", tmp_path / str(n), planned=planned) for n in range(5)]
    assert train(runs, jobs=2) == []
    assert Instant.started == [("0", 1), ("1", 2), ("2", 1), ("3", 2), ("4", 1)]
    written = read_suite(tmp_path)
    assert list(written) == ["0", "1", "2", "3", "4"]
    assert replace(written["3"], updated=0.0) == replace(planned, config="c.py")
