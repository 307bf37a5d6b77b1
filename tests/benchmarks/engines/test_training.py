from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from benchmarks.engines.training import SWEEP_FILE, Training, is_taken, write_plan
from benchmarks.launch.claim import CLAIM_FILE, claimed
from smd_hooks.records import PlannedRun, RunState, read_suite, write_state
from smd_hooks.records.lease import held


def test_progress_is_that_of_a_launch_since_it_began(tmp_path: Path) -> None:
    training = Training("run", "config.py", tmp_path / "run")
    assert (training.progress(), training.newest_launch) == ((0, None), "")
    write_state(tmp_path / "run" / "20260101_000000", RunState("running", 5, 10))
    assert training.progress() == (5, 10)
    training.begin()
    assert training.progress() == (0, None)  # what an earlier launch left does not count
    later = tmp_path / "run" / "20260101_000001"
    later.mkdir()
    assert training.newest_launch == later.name
    assert training.progress() == (0, None)
    write_state(later, RunState("failed", 7, 10, "no disk"))
    assert training.progress() == (7, 10)


def test_an_error_is_quoted_before_what_torchrun_says_of_it(tmp_path: Path) -> None:
    training = Training("run", "config.py", tmp_path)
    assert training.last_words().startswith("no output (see ")
    console = "epoch 1\nerror: the run failed on rank 3: no disk\nerror: on rank 0\n=====\n"
    training.console_file.write_text(console)
    assert training.last_words().startswith("error: the run failed on rank 3: no disk (see ")
    training.begin()
    assert training.last_words().startswith("no output (see ")
    with open(training.console_file, "a") as file:  # launch after launch
        file.write("epoch 1\nKilled\n")
    assert training.last_words().startswith("Killed (see ")


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


def test_to_go_on_is_asked_for_once(tmp_path: Path) -> None:
    training = Training("run", "config.py", tmp_path, ["--cfg-options", "a=1"])
    for _ in range(2):
        training.resume()
        assert training.options == ["--resume", "--cfg-options", "a=1"]


def test_torchrun_only_prints_the_exit_code_of_what_failed(tmp_path: Path) -> None:
    training = Training("run", "config.py", tmp_path, processes=2)
    assert training.exit_code(1) == 1
    training.console_file.write_text(
        "failures:\n[0]:\n  exitcode  : -15 (pid: 7)\nroot cause:\n  exitcode  : 75 (pid: 8)\n"
    )
    assert training.exit_code(1) == 75
    assert training.exit_code(0) == 0
    assert training.exit_code(-9) == -9
    assert replace(training, processes=1).exit_code(1) == 1


def test_the_next_launch_goes_on_from_what_mmengine_notes(tmp_path: Path) -> None:
    training = Training("run", "config.py", tmp_path)
    assert training.checkpoint == ""
    (tmp_path / "last_checkpoint").write_text("work_dirs/run/iter_10.pth")
    assert training.checkpoint == "work_dirs/run/iter_10.pth"


def test_one_that_was_told_to_end_twice_got_on_if_it_came_further(tmp_path: Path) -> None:
    """The file is the same each time."""
    training = Training("run", "config.py", tmp_path)
    (tmp_path / "last_checkpoint").write_text("work_dirs/run/interrupted.pth")
    seen = []
    for launch, iteration in enumerate((100, 250, 250)):
        folder = tmp_path / f"20260101_00000{launch}"
        write_state(folder, RunState("failed", iteration, 1000, "told to end"))
        seen.append(training.checkpoint)
    assert seen[0] != seen[1] == seen[2]


def test_it_is_alive_while_a_claim_is_or_where_there_is_none_its_records(tmp_path: Path) -> None:
    training = Training("run", "config.py", tmp_path)
    assert not training.is_alive
    with claimed(tmp_path):
        assert training.is_alive
    assert not training.is_alive
    tmp_path.mkdir(exist_ok=True)
    with held(tmp_path / SWEEP_FILE):
        assert is_taken(tmp_path)
        assert training.is_alive
    write_state(tmp_path / "20260101_000000", RunState("running", 5, 10))
    assert training.is_alive  # some other program trains it
    child = os.fork()
    if not child:
        with claimed(tmp_path):
            os._exit(1)
    os.waitpid(child, 0)
    assert (tmp_path / CLAIM_FILE).exists()
    assert not training.is_alive  # it said so a moment ago, and is dead
    (tmp_path / CLAIM_FILE).unlink()
    write_state(tmp_path / "20260101_000000", RunState("finished", 10, 10))
    assert not training.is_alive


def test_the_suite_knows_what_is_planned_and_what_failed(tmp_path: Path) -> None:
    planned = PlannedRun("", experiment="first", role="plain", scale="by 2", options={"lr": 0.1})
    one = Training("one", "c.py", tmp_path / "one", planned=planned)
    other = Training("other", "d.py", tmp_path / "other", failed="no disk")
    write_plan([one, other])
    written = read_suite(tmp_path)
    assert replace(written["one"], updated=0.0) == replace(planned, config="c.py")
    assert (written["other"].config, written["other"].failed) == ("d.py", "no disk")
