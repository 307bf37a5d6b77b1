from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks import trainings
from benchmarks.engines.local import Training, train
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


def test_an_error_is_quoted_before_what_torchrun_says_of_it(tmp_path: Path) -> None:
    training = Training("run", "config.py", tmp_path)
    console = "epoch 1\nerror: the run failed on rank 3: no disk\nerror: on rank 0\n=====\n"
    training.console_file.write_text(console)
    assert training.last_words().startswith("error: the run failed on rank 3: no disk (see ")
    training.console_file.write_text("epoch 1\nKilled\n")
    assert training.last_words().startswith("Killed (see ")
    training.console_file.write_text("")
    assert training.last_words().startswith("no output (see ")


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


def _alive(marker: str) -> bool:
    """Whether a process has this word in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            if marker.encode() in path.read_bytes():
                return True
    return False


class Lasting(Training):
    """Starts a process that lasts, and one that this one starts; both may be deaf to SIGTERM."""

    deaf: ClassVar[bool] = False

    @property
    def command(self) -> list[str]:
        mark, up = str(self.work_dir), str(self.work_dir / "up")
        ignore = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" * self.deaf
        child = f"{ignore}import time; time.sleep(100)"
        lines = ["import signal, subprocess, sys"]
        lines += [f"child = subprocess.Popen([sys.executable, '-c', {child!r}, {mark!r}])"]
        stop = "signal.SIG_IGN" if self.deaf else "lambda *a: (child.terminate(), sys.exit(3))"
        lines += [f"signal.signal(signal.SIGTERM, {stop})", f"open({up!r}, 'w').close()"]
        return [sys.executable, "-c", "\n".join([*lines, "child.wait()"]), mark]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("deaf", [False, True])
def test_a_sigterm_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    """Those that are deaf to it are killed, with all that they have started."""
    monkeypatch.setattr(trainings, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(trainings, "PATIENCE", 0.5 if deaf else 60.0)
    monkeypatch.setattr(Lasting, "deaf", deaf)
    runs = [Lasting(name, "c.py", tmp_path / name) for name in ("one", "two")]

    def progress(self: Training) -> tuple[int, None]:
        if all((run.work_dir / "up").exists() for run in runs):
            assert _alive(str(tmp_path))
            os.kill(os.getpid(), signal.SIGTERM)
        return 0, None

    monkeypatch.setattr(Lasting, "progress", progress)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(runs, jobs=2)
    assert [run.returncode for run in runs] == ([-signal.SIGKILL] * 2 if deaf else [3, 3])
    until = time.monotonic() + 20
    while _alive(str(tmp_path)) and time.monotonic() < until:  # the grandchild needs a moment
        time.sleep(0.05)
    assert not _alive(str(tmp_path))
    assert signal.getsignal(signal.SIGTERM) is before
    assert all(run.failed for run in read_suite(tmp_path).values())


def test_several_processes_are_started_by_torchrun(tmp_path: Path) -> None:
    options = ["--cfg-options", "a=1"]
    one = Training("run", "config.py", tmp_path, options)
    own = ["config.py", "--work-dir", str(tmp_path)]
    assert one.command[1:] == ["-m", "benchmarks", "run", *own, *options]
    several = replace(one, processes=8)
    assert several.command[1:] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=8"),
        *("-m", "benchmarks", "run", "--launcher", "pytorch", *own, *options),
    ]


@pytest.mark.slow
def test_two_processes_that_fail_are_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of one is what the suite says, not torchrun's words about it."""
    monkeypatch.chdir(ROOT)
    nowhere = Training("two", str(tmp_path / "nowhere.py"), tmp_path / "two", processes=2)
    assert train([nowhere]) == [nowhere]
    said = read_suite(tmp_path)["two"].failed
    assert said.startswith(f"error: config {tmp_path / 'nowhere.py'} does not exist")


@pytest.mark.parametrize(
    ("processes", "running", "jobs", "given"),
    [
        (8, {}, None, list("01234567")),
        (8, {"other": ["3"]}, None, None),  # has to wait until all are free
        (1, {"other": ["0"]}, None, ["1"]),
        (4, {"other": ["0", "1"]}, None, ["2", "3", "4", "5"]),
        (1, {str(n): [str(n)] for n in range(8)}, None, None),
        (1, {str(n): [str(n)] for n in range(8)}, 9, ["0"]),  # who wants nine has them share
        (1, {"other": ["0"]}, 1, None),
    ],
)
def test_each_process_has_a_gpu(
    processes: int, running: dict[str, list[str]], jobs: int | None, given: list[str] | None
) -> None:
    training = Training("run", "config.py", Path("run"), processes=processes)
    assert trainings._places(training, running, jobs, list("01234567")) == given


class Looking(Training):
    """Prints which GPUs it sees."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"]


def test_a_training_sees_its_gpus_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainings, "POLL_SECONDS", 0.05)
    runs = [Looking(str(n), "c.py", tmp_path / str(n)) for n in range(2)]
    assert train(runs, gpus=["4", "2"]) == []
    assert [run.last_words().split()[0] for run in runs] == ["4", "2"]


class Instant(Training):
    """Ends as soon as it is looked at; counts how many run beside it."""

    running: ClassVar[set[str]] = set()
    started: ClassVar[list[tuple[str, int]]] = []

    def start(self, gpus: Sequence[str] = ()) -> None:
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
