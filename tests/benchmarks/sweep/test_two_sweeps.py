"""Two sweeps of one suite, started at once in two processes, with runs that are a line of shell."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.engines import elsewhere, local
from benchmarks.engines.training import Training
from benchmarks.speed.sweep import _write_suite, trivial
from smd_hooks.analysis import load_runs
from smd_hooks.records import read_suite

RUNS = 8


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs that note each try, and take a while."""
    monkeypatch.setattr(local, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(elsewhere, "LOOK_EVERY", 0.1)
    (tmp_path / "files").mkdir()
    with trivial(tmp_path / "files"):
        leaves = Training.command.fget

    def command(training: Training) -> list[str]:
        shell, option, script, *arguments = leaves(training)
        return [shell, option, f'echo x >>"$1/tries"; sleep 0.3\n{script}', *arguments]

    monkeypatch.setattr(Training, "command", property(command))
    return _write_suite(tmp_path, RUNS)


def start(suite: Path, root: Path, log: Path) -> int:
    """Sweep in a process of its own; return its number."""
    pid = os.fork()
    if not pid:
        os.setsid()
        code = 99
        try:
            with open(log, "a") as told, redirect_stdout(told):
                code = main(["sweep", str(suite), "--work-dir", str(root), "--jobs", "1"])
        finally:
            os._exit(code)
    return pid


def codes(pids: Sequence[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def tries(root: Path) -> list[int]:
    return [len((path / "tries").read_text().split()) for path in sorted(root.glob("cost-*"))]


def test_both_end_well_each_run_is_trained_once_and_both_tables_are_whole(
    tmp_path: Path, suite: Path
) -> None:
    root, logs = tmp_path / "root", [tmp_path / "one", tmp_path / "other"]
    assert codes([start(suite, root, log) for log in logs]) == [0, 0]
    assert tries(root) == [1] * RUNS
    assert [run.status for run in load_runs(root)] == ["finished"] * RUNS
    planned = read_suite(root)
    assert len(planned) == RUNS
    assert not any(run.failed for run in planned.values())
    tables = [[x for x in log.read_text().splitlines() if "plain" in x] for log in logs]
    assert tables[0] == tables[1] != []
    assert not list(root.glob("*/.sweep")) + list(root.glob(".*.lock"))


def test_a_sweep_that_was_killed_leaves_its_run_to_end_and_the_next_one_waits(
    tmp_path: Path, suite: Path
) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    first = start(suite, root, log)
    run = root / "cost-plain-seed0"
    wait_for(run / "tries")
    os.kill(first, signal.SIGKILL)
    assert codes([first]) == [-signal.SIGKILL]
    wait_for(run / "last_checkpoint")  # it is in a session of its own, and ends by itself
    assert codes([start(suite, root, log)]) == [0]
    assert tries(root) == [1] * RUNS
