from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks.engines import local, retries
from benchmarks.engines import training as training_module
from benchmarks.engines.launched import Launched
from benchmarks.engines.local import train
from benchmarks.engines.training import SWEEP_FILE, Training, is_taken
from benchmarks.launch.claim import HELD, KNOWN_LAUNCH, claimed
from smd_hooks.analysis import agreement_table, load_runs
from smd_hooks.records import RunState, read_suite, write_state
from smd_hooks.records.lease import held
from tests.benchmarks.engines.scripts import Script, scripts
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(retries, "PAUSES", (0.1, 0.2, 0.3))


@pytest.mark.slow
def test_failed_ones_are_told_apart_and_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    nowhere = Training("nowhere", str(tmp_path / "nowhere.py"), tmp_path / "nowhere")
    helped = Training("helped", "--help", tmp_path / "helped")
    assert train([nowhere, helped]) == [nowhere]
    assert "nowhere.py does not exist" in nowhere.failed
    assert sys.executable not in nowhere.failed
    planned = read_suite(tmp_path)
    assert planned["nowhere"].failed == nowhere.failed
    assert (planned["helped"].config, planned["helped"].failed) == ("--help", "")
    table = agreement_table(load_runs(tmp_path)).set_index("run")
    assert table.loc["nowhere", "verdict"] == f"failed: {nowhere.failed}"
    assert table["status"].to_dict() == {"helped": "missing", "nowhere": "failed"}


def test_an_interrupt_ends_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(launches: object, seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "wait_for_an_end", interrupt)
    one, other = scripts(tmp_path, one="exec sleep 100", other="true")
    with pytest.raises(KeyboardInterrupt):
        train([one, other], jobs=1)
    assert (bool(one.failed), bool(other.failed)) == (True, False)
    assert read_suite(tmp_path)["one"].failed
    assert not is_taken(one.work_dir)


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
    monkeypatch.setattr(local, "PATIENCE", 0.5 if deaf else 60.0)
    monkeypatch.setattr(Lasting, "deaf", deaf)
    runs = [Lasting(name, "c.py", tmp_path / name) for name in ("one", "two")]
    codes: list[int | None] = []

    def progress(self: Training) -> tuple[int, None]:
        if all((run.work_dir / "up").exists() for run in runs) and not codes:
            assert _alive(str(tmp_path))
            os.kill(os.getpid(), signal.SIGTERM)
        return 0, None

    kill = Launched.kill

    def noted(self: Launched, after: float) -> None:
        kill(self, after)
        codes.append(self.returncode)

    monkeypatch.setattr(Lasting, "progress", progress)
    monkeypatch.setattr(Launched, "kill", noted)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(runs, jobs=2, retries=3)
    assert set(codes) == ({-signal.SIGKILL} if deaf else {3})
    until = time.monotonic() + 20
    while _alive(str(tmp_path)) and time.monotonic() < until:  # the grandchild needs a moment
        time.sleep(0.05)
    assert not _alive(str(tmp_path))
    assert signal.getsignal(signal.SIGTERM) is before
    assert all(run.failed for run in read_suite(tmp_path).values())


@pytest.mark.slow
def test_two_processes_that_fail_are_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of one is what the suite says, not torchrun's words about it; no retry mends it."""
    monkeypatch.chdir(ROOT)
    nowhere = Training("two", str(tmp_path / "nowhere.py"), tmp_path / "two", processes=2)
    assert train([nowhere], retries=3) == [nowhere]
    said = read_suite(tmp_path)["two"].failed
    assert said.startswith(f"error: config {tmp_path / 'nowhere.py'} does not exist")
    assert nowhere.said().count("Root Cause") == 1


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
    assert local._places(training, running, jobs, list("01234567")) == given


def test_a_training_sees_its_gpus_only(tmp_path: Path) -> None:
    runs = scripts(tmp_path, one="echo $CUDA_VISIBLE_DEVICES", two="echo $CUDA_VISIBLE_DEVICES")
    assert train(runs, gpus=["4", "2"]) == []
    assert [run.last_words().split()[0] for run in runs] == ["4", "2"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_so_many_run_at_a_time_the_first_ones_first(tmp_path: Path, jobs: int) -> None:
    note = "echo begins $(basename $PWD) >>../log; sleep 0.2; echo ends >>../log"
    runs = scripts(tmp_path, **{f"r{n}": note for n in range(5)})
    assert train(runs, jobs=jobs) == []
    lines = (tmp_path / "log").read_text().split("\n")[:-1]
    assert sorted(line for line in lines if line != "ends") == [f"begins r{n}" for n in range(5)]
    running, most = 0, 0
    for line in lines:
        running += -1 if line == "ends" else 1
        most = max(most, running)
    assert most == jobs
    if jobs == 1:
        assert lines[::2] == [f"begins r{n}" for n in range(5)]
    assert list(read_suite(tmp_path)) == [f"r{n}" for n in range(5)]


GOES_ON = "echo x >>tries; echo iter_$(wc -l <tries) >last_checkpoint; "
"""Leaves a new checkpoint with each try."""


def tries(training: Training) -> int:
    return len((training.work_dir / "tries").read_text().split())


def test_what_breaks_off_is_tried_again_and_others_go_on(tmp_path: Path) -> None:
    broken, other, hopeless = scripts(
        tmp_path,
        broken=GOES_ON + 'echo "$resume" >>resumes; [ $(wc -l <tries) = 3 ] || exit 1',
        other="echo x >>tries; [ -f ../broken/last_checkpoint ]",
        hopeless=GOES_ON + "echo error: it is broken; exit 1",
    )
    assert train([broken, other, hopeless], jobs=1, retries=3) == [hopeless]
    assert [tries(run) for run in (broken, other, hopeless)] == [3, 1, 4]
    assert (broken.work_dir / "resumes").read_text() == "\n--resume\n--resume\n"
    planned = read_suite(tmp_path)
    assert planned["hopeless"].failed.startswith("error: it is broken (see ")
    assert planned["broken"].failed == ""


def test_what_comes_no_further_is_given_up_and_what_was_told_to_end_is_not(
    tmp_path: Path,
) -> None:
    stuck, told, unusable, killed = scripts(
        tmp_path,
        stuck="echo x >>tries; exit 1",
        told=GOES_ON + "[ $(wc -l <tries) = 9 ] || exit 75",
        unusable="echo x >>tries; echo error: no such thing; exit 2",
        killed=GOES_ON + "[ $(wc -l <tries) = 2 ] || kill -9 $$",
    )
    assert train([stuck, told, unusable, killed], jobs=2, retries=3) == [stuck, unusable]
    assert [tries(run) for run in (stuck, told, unusable, killed)] == [2, 9, 1, 2]


def test_what_diverged_is_not_tried_again(tmp_path: Path) -> None:
    [training] = scripts(tmp_path, run=GOES_ON + "exit 1")
    seen: list[bool] = []

    def state(self: Training) -> RunState:
        seen.append(True)
        return RunState("failed", 5, 10, "the loss is not finite since iteration 5")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Script, "state", state)
        assert train([training], retries=3) == [training]
    assert tries(training) == 1
    assert seen


def test_a_work_dir_that_cannot_be_made_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bad, good = scripts(tmp_path, bad="true", good="true")
    bad.work_dir = tmp_path / "good" / "file" / "run"
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "file").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "write_plan", lambda trainings: None)
        assert train([bad, good]) == [bad]
    assert bad.failed == f"{bad.work_dir} cannot be written to: Not a directory"


def test_what_another_launch_has_is_left_alone(tmp_path: Path) -> None:
    runs = scripts(
        tmp_path,
        claimed="echo x >>tries",
        swept="echo x >>tries",
        refused=f"echo 'error: this {HELD} somebody'; exit 2",
        done="echo x >>tries",
        free="echo x >>tries",
    )
    of = {run.name: run for run in runs}
    of["done"].known = ""
    write_state(of["done"].work_dir / "20260101_000000", RunState("finished", 10, 10))
    of["swept"].work_dir.mkdir()
    with claimed(of["claimed"].work_dir), held(of["swept"].work_dir / SWEEP_FILE):
        assert train(runs, jobs=1, retries=3) == []
    assert [run.elsewhere for run in runs] == [True, True, True, True, False]
    assert [(run.work_dir / "tries").exists() for run in runs] == [False] * 4 + [True]
    assert not any(entry.failed for entry in read_suite(tmp_path).values())
    assert not any(is_taken(run.work_dir) for run in runs)


def test_two_at_once_train_each_run_once(tmp_path: Path) -> None:
    """Also one that is over before the other has come to it."""
    script = "echo x >>tries; mkdir -p 20260101_000000/smd; sleep 0.02"
    both = [scripts(tmp_path, **{f"r{n:02}": script for n in range(12)}) for _ in range(2)]
    for run in [run for runs in both for run in runs]:
        run.known = ""
    seconds = threading.Thread(target=train, args=(both[1], 2))
    seconds.start()
    assert train(both[0], jobs=2) == []
    seconds.join()
    assert [tries(run) for run in both[0]] == [1] * 12
    for one, other in zip(*both, strict=True):
        assert (one.elsewhere, other.elsewhere).count(True) == 1
    assert len(read_suite(tmp_path)) == 12


def test_that_one_has_ended_is_seen_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LOOK_EVERY", 60.0)
    began = time.monotonic()
    assert train(scripts(tmp_path, **{f"r{n}": "true" for n in range(10)}), jobs=1) == []
    assert time.monotonic() - began < 30.0


def test_a_full_disk_in_the_sweeps_folder_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be noted is said, once."""
    planned = []

    def full(trainings: object) -> None:
        planned.append(trainings)
        if len(planned) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training_module, "write_plan", full)
    monkeypatch.setattr(local, "write_plan", full)
    broken, other = scripts(tmp_path, broken="exit 2", other="sleep 1; touch here")
    assert train([broken, other], jobs=2) == [broken]
    assert not other.failed
    said = capsys.readouterr().out.splitlines()
    told = [line for line in said if "cannot be noted: No space left on device" in line]
    assert 1 <= len(told) <= 2  # as it happens, and at the end


def test_each_launch_is_told_the_newest_that_is_known(tmp_path: Path) -> None:
    (training,) = scripts(tmp_path, one=f'printf %s "${KNOWN_LAUNCH}" >told')
    (training.work_dir / "20260101_000000").mkdir(parents=True)
    training.known = "20260101_000000"
    assert train([training]) == []
    (told,) = tmp_path.rglob("told")
    assert told.read_text() == "20260101_000000"
