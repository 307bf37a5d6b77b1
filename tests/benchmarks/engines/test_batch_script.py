"""The script of an element, with programs of its own in place of Slurm's."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.engines.slurm_array import BATCH_SCRIPT
from smd_hooks.records import RunState, write_state

NOTICE = signal.SIGUSR1


@dataclass
class Element:
    """Element 1 of array 7, whose srun ends as ``run`` says, a line of shell."""

    folder: Path
    run: str
    state: str = "RUNNING"

    def __post_init__(self) -> None:
        self.work_dir.mkdir()
        programs = {
            "srun": f'echo "srun $*"; {self.run}',
            "squeue": f'[ "$2" = --jobs=7_1 ] && echo {self.state}',
            "scontrol": f'echo "$@" >{shlex.quote(str(self.folder / "asked"))}',
        }
        for name, content in programs.items():
            program = self.folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f"#!/bin/bash\ncd {shlex.quote(str(self.work_dir))}\n{content}\n")
            program.chmod(0o755)
        lines = [["/nowhere", "false"], [str(self.work_dir), "train", "it's", "a  b", "$HOME", "*"]]
        tasks = "".join(f"{shlex.join(line)}\n" for line in lines)
        (self.folder / "tasks").write_text(tasks)

    @property
    def work_dir(self) -> Path:
        return self.folder / "a 'run'"

    @property
    def requeued(self) -> bool:
        asked = self.folder / "asked"
        return asked.exists() and asked.read_text() == "requeue 7_1\n"

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": "1",
        }
        return subprocess.Popen(
            ["bash", str(BATCH_SCRIPT), str(self.folder / "tasks")], env=environment
        )

    def console(self) -> str:
        path = self.work_dir / "console.log"
        return path.read_text() if path.exists() else ""


def _save(name: str) -> str:
    return f"echo {name} >last_checkpoint"


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_it_ends_as_the_run_does(tmp_path: Path, code: int) -> None:
    element = Element(tmp_path, f"{_save('iter_1.pth')}; exit {code}")
    assert element.start().wait(20) == code
    assert not element.requeued
    words = "srun --kill-on-bad-exit=1 train it's a  b $HOME *"
    assert element.console() == f"{words}\n"


@pytest.mark.parametrize(
    ("saved", "iteration", "state", "requeued"),
    [
        ("iter_2.pth", 1, "RUNNING", True),
        ("iter_1.pth", 2, "RUNNING", True),  # another checkpoint of the same name
        ("iter_1.pth", 1, "RUNNING", False),  # it would be told to end for ever
        ("iter_2.pth", 2, "COMPLETING", False),  # cancelled, or requeued by Slurm itself
    ],
)
def test_a_run_that_asks_for_it_goes_back_to_the_queue(
    tmp_path: Path, saved: str, iteration: int, state: str, requeued: bool
) -> None:
    launch = "20260101_000002"
    run = f"{_save(saved)}; mkdir -p {launch}; mv new {launch}/smd; exit 75"
    element = Element(tmp_path, run, state)
    (element.work_dir / "last_checkpoint").write_text("iter_1.pth\n")
    write_state(element.work_dir / "20260101_000001", RunState("failed", 1, 10))
    write_state(element.work_dir, RunState("failed", iteration, 10))
    (element.work_dir / "smd").rename(element.work_dir / "new")
    assert element.start().wait(20) == (0 if requeued else 75)
    assert element.requeued is requeued
    stuck = state == "RUNNING" and not requeued
    assert ("error: told to end before it came any further" in element.console()) is stuck


def test_a_requeued_element_goes_on_with_its_console(tmp_path: Path) -> None:
    element = Element(tmp_path, "echo more")
    (element.work_dir / "console.log").write_text("before\n")
    assert element.start().wait(20) == 0
    assert element.console().startswith("before\nsrun ")
    assert element.console().endswith("more\n")


@pytest.mark.parametrize(
    ("sent", "code", "heard"), [(NOTICE, 0, "heard"), (signal.SIGTERM, 1, "not told")]
)
def test_the_notice_is_passed_on_and_sigterm_is_not(
    tmp_path: Path, sent: signal.Signals, code: int, heard: str
) -> None:
    """Slurm sends the former to the script alone, the latter to all."""
    run = (
        f"trap 'sleep 0.5; {_save('iter_9.pth')}; echo heard; exit 75' USR1\n"
        "trap 'echo told twice; exit 3' TERM\n"
        "echo up; for _ in {1..15}; do sleep 0.1; done; echo not told; exit 1"
    )
    element = Element(tmp_path, run)
    process = element.start()
    until = time.monotonic() + 20
    while "up" not in element.console() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(sent)
    assert process.wait(20) == code
    assert element.console().splitlines()[2] == heard
    assert element.requeued is (sent is NOTICE)


def test_without_its_task_it_touches_nothing(tmp_path: Path) -> None:
    element = Element(tmp_path, "exit 0")
    (tmp_path / "tasks").write_text("")
    assert element.start().wait(20) == 2
    assert not element.console()
