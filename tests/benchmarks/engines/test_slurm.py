"""What is asked of Slurm, and what is made of its answers; ``tests/slurm`` asks a real one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.engines import slurm
from benchmarks.engines.retries import PAUSES
from benchmarks.engines.slurm import Element
from benchmarks.engines.slurm_array import in_queue, kinds, sbatch_options, submit, task
from benchmarks.engines.slurm_queue import Job, Place, comment, jobs_in_queue, read_job
from benchmarks.engines.training import Training
from benchmarks.errors import UsageError
from smd_hooks.records import RunState, read_suite, write_state
from smd_hooks.records.lease import Lease

ODD = 'it\'s "odd" | $HOME %a\\n #1'


def _programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **contents: str) -> None:
    """Put programs of Slurm's names, each a line of shell, in front of all others."""
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_text(f"#!/bin/bash\n{content}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_options_are_sbatchs() -> None:
    given = ["partition=gpu", "time=1-0:00", "exclusive", "gres=gpu:a100:1", "ntasks-per-node=4"]
    assert sbatch_options(given) == [f"--{option}" for option in given]


@pytest.mark.parametrize(
    "option", ["array=0-9", "arr=0-9", "output=x", "job-name=x", "signal=TERM", "requeue", "wrap=x"]
)
def test_what_the_engine_sets_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=rf"--slurm {option}: the sweep sets sbatch's --"):
        sbatch_options([option])


@pytest.mark.parametrize("option", ["--time=1:00", "-p", "=x", ""])
def test_what_is_no_key_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match="write KEY=VALUE"):
        sbatch_options([option])


def test_a_task_survives_the_shell(tmp_path: Path) -> None:
    options = ["--resume", "--cfg-options", f"a.b={ODD}", "c=['x', \"y\"]"]
    training = Training("run", f"{ODD}.py", tmp_path / ODD, options)
    line = task(training)
    shell = ["bash", "-c", 'eval "set -- $(cat)"; printf \'%s\\n\' "$@"']
    words = subprocess.run(shell, input=line, capture_output=True, text=True).stdout.splitlines()
    run = [sys.executable, "-m", "benchmarks", "run", f"{ODD}.py"]
    place = ["--work-dir", str(tmp_path / ODD)]
    assert words == [
        *(str(tmp_path / ODD), *run, *place, "--launcher", "none"),
        *("--resume", "--cfg-options", f"a.b={ODD}", "c=['x', \"y\"]"),
    ]


def test_several_processes_meet_by_slurm(tmp_path: Path) -> None:
    words = shlex.split(task(Training("run", "c.py", tmp_path, processes=8)))
    assert words[words.index("--launcher") + 1] == "slurm"


def test_a_line_break_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has a line break"):
        task(Training("run", "c.py", tmp_path, ["--cfg-options", "a=1\n2"]))


def test_the_queue_is_read(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    line = f"12|3|PENDING|Resources|{comment(folder)}"
    assert read_job(line) == Job(Place("12", 3), "PENDING", "Resources", folder)
    for other in ("12|N/A|RUNNING|None|(null)", "12|3|RUNNING|None|my job", "12|3|RUNNING", ""):
        assert read_job(other) is None


@pytest.mark.parametrize(
    ("state", "reason", "has_run", "word"),
    [
        ("RUNNING", "None", True, ""),
        ("COMPLETING", "None", True, "completing"),
        ("PENDING", "Priority", False, "pending"),
        ("PENDING", "QOSMaxJobsPerUserLimit", False, "pending (QOSMaxJobsPerUserLimit)"),
        ("PENDING", "BeginTime", True, "requeued (BeginTime)"),
    ],
)
def test_a_job_is_told_of_in_a_word(state: str, reason: str, has_run: bool, word: str) -> None:
    assert Job(Place("1", 0), state, reason).word(has_run) == word


def _submit(trainings: Sequence[Training], folder: Path) -> dict[str, Place]:
    return submit(trainings, folder / "slurm", ["--partition=odd one"], 2)


def test_what_was_submitted_is_found_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / ODD
    (root / "slurm").mkdir(parents=True)
    asked = shlex.quote(str(tmp_path / "asked"))
    _programs(tmp_path / "bin", monkeypatch, sbatch=f"printf '%s\\n' \"$@\" >{asked}; echo '17;a'")
    trainings = [Training(str(n), "c.py", root / f"run {n}") for n in range(3)]
    places = _submit(trainings, root)
    assert places == {str(n): Place("17", n) for n in range(3)}
    *options, script, tasks = (tmp_path / "asked").read_text().splitlines()
    assert {"--array=0-2%2", "--requeue", "--partition=odd one", "--gpus-per-task=1"} <= {*options}
    folder = Path(script).parent
    written = shlex.split((folder / "command").read_text())
    assert written == ["sbatch", *options, script, tasks]
    again = _submit(trainings, root)  # within the second: a folder of its own
    assert again == places
    assert len(list((root / "slurm").iterdir())) == 2

    states = ["RUNNING", "COMPLETED", "PENDING"]
    jobs = [Job(Place("17", n), state, "", folder) for n, state in enumerate(states)]
    others = [
        Job(Place("4", 0), "RUNNING", "", tmp_path),
        Job(Place("17", 9), "RUNNING", "", folder),
    ]
    assert in_queue(trainings, [*others, *jobs]) == {"0": Place("17", 0), "2": Place("17", 2)}
    assert in_queue([Training("0", "c.py", tmp_path / "run 0")], jobs) == {}


def test_what_is_said_of_gpus_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm").mkdir()
    _programs(tmp_path / "bin", monkeypatch, sbatch="echo 1")
    training = Training("run", "c.py", tmp_path / "run", processes=4)
    submit([training], tmp_path / "slurm", ["--gres=gpu:4"], None)
    (written,) = tmp_path.glob("slurm/*/command")
    assert "--array=0-0 " in written.read_text()
    assert "--ntasks=4 --gres=gpu:4" in written.read_text()
    assert "--gpus-per-task" not in written.read_text()


def test_those_of_equally_many_processes_go_together() -> None:
    trainings = [Training(str(n), "c.py", Path(str(n)), processes=n % 2 + 1) for n in range(4)]
    assert [[t.name for t in kind] for kind in kinds(trainings)] == [["0", "2"], ["1", "3"]]


def test_refusals_are_told_in_slurms_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training("run", "c.py", tmp_path / "run")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no squeue here"):
        slurm.train([training])
    assert not any(tmp_path.iterdir())
    refusal = "echo 'sbatch: error: bad' >&2; echo 'sbatch: error: very bad' >&2; exit 1"
    _programs(tmp_path / "bin", monkeypatch, squeue="true", sbatch=refusal)
    with pytest.raises(UsageError, match=r"sbatch: bad; very bad; asked for --ntasks=1 --gpus"):
        slurm.train([training])
    _programs(tmp_path / "bin", monkeypatch, sbatch="true")
    with pytest.raises(UsageError, match="sbatch submitted nothing"):
        slurm.train([training])


def test_only_this_users_jobs_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = f"1|0|RUNNING|None|{comment(tmp_path)}"
    content = f'[[ " $* " == *" --user={os.getuid()} "* ]] && printf "%s\\n" {shlex.quote(said)}'
    _programs(tmp_path / "bin", monkeypatch, squeue=content)
    assert jobs_in_queue() == [Job(Place("1", 0), "RUNNING", "None", tmp_path)]


def _element(tmp_path: Path) -> Element:
    element = Element(Training("run", "c.py", tmp_path / "run", length=10))
    element.training.work_dir.mkdir()
    element.training.console_file.write_text("error: it broke\nsrun: error: exit code 1\n")
    element.enter(Place("1", 0))
    return element


def _job(state: str) -> Job:
    return Job(Place("1", 0), state)


def test_an_element_is_followed(tmp_path: Path) -> None:
    element = _element(tmp_path)
    assert (element.look().standing, element.look().word) == ("waits", "submitted")
    assert element.see(_job("PENDING"), 0) == ""
    assert (element.look().standing, element.look().word) == ("waits", "pending")
    element.see(_job("RUNNING"), 0)
    write_state(element.training.work_dir / "20260101_000000", RunState("running", 4, 10))
    assert (element.look().standing, element.look().done) == ("runs", 4)
    element.see(_job("PENDING"), 0)
    assert (element.look().standing, element.look().word) == ("waits", "requeued")
    assert element.see(_job("COMPLETED"), 0) == ""
    assert (element.look().standing, element.training.failed) == ("over", "")


@pytest.mark.parametrize(
    ("state", "told"),
    [("FAILED", "error: it broke"), ("TIMEOUT", "out of its time limit, error: it broke")],
)
def test_what_broke_off_is_submitted_again_as_often_as_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, told: str
) -> None:
    _programs(tmp_path / "bin", monkeypatch, scontrol="echo JobId=1 ExitCode=1:0 x=1")
    element = _element(tmp_path)
    said = element.see(_job(state), 1)
    assert said.startswith(f"run is submitted again in {PAUSES[0]:.0f} s: {told} (see ")
    assert not element.is_due
    assert not element.over
    (element.training.work_dir / "last_checkpoint").write_text("iter_5.pth")
    element.enter(Place("2", 0))
    assert element.see(_job(state), 1).startswith(f"run failed: {told} (see ")
    assert element.over
    assert read_suite(tmp_path)["run"].failed == element.training.failed


@pytest.mark.parametrize(
    ("state", "code", "failed"), [("CANCELLED", 1, "cancelled, "), ("FAILED", 2, "error: ")]
)
def test_what_would_end_so_again_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, code: int, failed: str
) -> None:
    _programs(tmp_path / "bin", monkeypatch, scontrol=f"echo JobId=1 ExitCode={code}:0")
    element = _element(tmp_path)
    element.see(_job(state), 3)
    assert element.over
    assert element.training.failed.startswith(failed)


@pytest.mark.parametrize(
    ("sacct", "status", "failed"),
    [
        ("echo COMPLETED", "running", False),
        ("echo CANCELLED by 0", "finished", True),
        ("exit 1", "finished", False),  # accounting is off: the run itself says so
        ("exit 1", "running", True),
    ],
)
def test_what_the_queue_knows_no_more_is_asked_of_accounting_and_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sacct: str, status: str, failed: bool
) -> None:
    _programs(tmp_path / "bin", monkeypatch, sacct=sacct, scontrol="exit 1")
    element = _element(tmp_path)
    write_state(element.training.work_dir / "20260101_000000", RunState(status, 10, 10))  # type: ignore[arg-type]
    element.see(None, 0)
    assert element.over
    assert bool(element.training.failed) is failed


def test_what_others_have_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what a launch outside the queue trains nor what it has trained meanwhile."""
    _programs(tmp_path / "bin", monkeypatch, squeue="true", sbatch="echo submitted >&2; exit 1")
    taken, moved_on = (Training(name, "c.py", tmp_path / name) for name in ("taken", "moved on"))
    taken.work_dir.mkdir()
    lease = Lease(taken.sweep_file)
    assert lease.take()
    moved_on.known = "20260101_000000"
    (moved_on.work_dir / "20260101_000001").mkdir(parents=True)
    try:
        assert slurm.train([taken, moved_on]) == []
    finally:
        lease.release()
    assert taken.elsewhere
    assert moved_on.elsewhere
