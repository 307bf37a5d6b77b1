"""What is asked of Slurm, and what is made of its answers; ``tests/slurm`` asks a real one."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from benchmarks.engines import slurm, slurm_array
from benchmarks.engines.progress import Display
from benchmarks.engines.retries import PAUSES
from benchmarks.engines.slurm import Element
from benchmarks.engines.slurm_array import alone, in_queue, kinds, sbatch_options, submit, task
from benchmarks.engines.slurm_queue import Job, Place, comment, jobs_in_queue, read_job
from benchmarks.engines.training import Training
from benchmarks.errors import UsageError
from smd_hooks.records import RunState, read_suite, write_state
from smd_hooks.records import lease as lease_module
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


@pytest.mark.parametrize("option", ["clusters=X", "cluster-constraint=x", "cluster=X"])
def test_other_clusters_are_refused(option: str) -> None:
    """Nobody would ask them for the jobs, so that all would seem lost."""
    with pytest.raises(UsageError, match=rf"--slurm {option}: a sweep's jobs are on its own cl"):
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
    with pytest.raises(UsageError, match=r"sbatch: bad; very bad$"):
        slurm.train([training])
    refusal = "echo 'sbatch: error: Requested node configuration is not available' >&2; exit 1"
    _programs(tmp_path / "bin", monkeypatch, sbatch=refusal)
    with pytest.raises(UsageError, match=r"not available; asked for --ntasks=1 --gpus"):
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


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that keep what was submitted in a file, and take at most three jobs at a time."""
    monkeypatch.setattr(slurm, "LOOK_EVERY", 0.0)
    said, limit = tmp_path / "submitted", "Job violates policy (job submit limit, user's size)"
    sbatch = (
        f'said={shlex.quote(str(said))}; array=$(grep -o -- "--array=[^ ]*" <<<"$*")\n'
        f'last=${{array#*-?*-}}; (( ${{last%\\%*}} < 3 )) || {{ echo "{limit}" >&2; exit 1; }}\n'
        'echo "$array" >>"$said"; wc -l <"$said"'
    )
    config = "echo 'MaxArraySize            = 5'"
    _programs(tmp_path / "bin", monkeypatch, squeue="true", sbatch=sbatch, scontrol=config)
    return said


def _sweep(folder: Path, number: int, slots: int | None) -> slurm._Sweep:
    names = [str(n) for n in range(number)]
    elements = [Element(Training(name, "c.py", folder / "runs" / name)) for name in names]
    return slurm._Sweep(elements, [], slots)


def _arrays(said: Path) -> list[str]:
    return [line.removeprefix("--array=") for line in said.read_text().splitlines()]


def _killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Path
) -> tuple[slurm._Sweep, Element, Path]:
    """A sweep whose one element was killed on another node a moment ago, and is due again."""
    monkeypatch.setattr(slurm, "accounted", lambda place: Job(place, "OUT_OF_MEMORY"))
    sweep = _sweep(tmp_path, 1, None)
    (element,) = sweep.elements
    claim = element.training.work_dir / ".claim"
    sweep.submit()
    holder = {"host": "elsewhere", "space": "x", "pid": 1, "started": 1, "since": 1}
    claim.write_text(json.dumps({**holder, "token": "dead", "term": 60.0}))
    (element.training.work_dir / "20260101_000000").mkdir()
    assert "is submitted again" in element.see(None, 3)
    element.not_before = 0.0
    return sweep, element, claim


def test_a_claim_that_outlives_its_job_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Path
) -> None:
    """It keeps the run from being submitted for its term, and from nothing else."""
    sweep, element, _ = _killed(tmp_path, monkeypatch, cluster)
    sweep.submit()
    assert (element.over, element.place) == (False, None)
    assert element.look().word == "tried again soon"
    now = time.monotonic()
    monkeypatch.setattr(lease_module.time, "monotonic", lambda: now + 61)
    sweep.submit()
    assert element.place == Place("2", 0)
    element.see(None, 1)
    assert element.training.failed.startswith("out of memory")


@pytest.mark.parametrize("sign", ["touched", "launched"])
def test_a_claim_that_is_touched_after_its_job_is_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Path, sign: str
) -> None:
    sweep, element, claim = _killed(tmp_path, monkeypatch, cluster)
    if sign == "touched":
        os.utime(claim)
    else:
        (element.training.work_dir / "20260101_000001").mkdir()
    sweep.submit()
    assert element.over
    assert element.training.elsewhere


def test_an_array_is_as_long_as_the_cluster_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Path
) -> None:
    """Longer ones come in parts: as it is configured to, or as it turns out."""
    sweep = _sweep(tmp_path, 7, None)
    sweep.submit()
    assert _arrays(cluster) == ["0-1", "0-1", "0-1", "0-0"]
    assert len({element.place for element in sweep.elements}) == 7


def test_what_no_more_is_taken_waits_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Path
) -> None:
    full = f'(( $(wc -l <{cluster}) < 2 )) || {{ echo "job submit limit" >&2; exit 1; }}'
    (tmp_path / "bin" / "sbatch").write_text(
        f"#!/bin/bash\n: >>{cluster}\n{full}\necho more >>{cluster}; wc -l <{cluster}\n"
    )
    sweep = _sweep(tmp_path, 12, None)
    sweep.submit()
    left = [element for element in sweep.elements if element.place is None]
    assert len(left) == 2
    assert not any(element.over or element.is_due for element in left)
    assert left[0].look().word == "not submitted yet"


def test_slots_hold_for_all_arrays_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Path
) -> None:
    sweep = _sweep(tmp_path, 5, 2)
    first, *_, last = sweep.elements
    last.not_before = time.monotonic() + 1e6
    sweep.submit()
    assert _arrays(cluster) == ["0-1%2"]  # further ones would run beside it
    sweep.submit()
    assert _arrays(cluster) == ["0-1%2"]
    first.place, first.over = None, True
    last.not_before = 0.0
    sweep.submit()
    assert _arrays(cluster) == ["0-1%2", "0-0%2"]
    assert [element.place is not None for element in sweep.elements] == [
        *(False, True, True, False, False)
    ]


def test_a_lasting_refusal_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Path
) -> None:
    _programs(tmp_path / "bin", monkeypatch, sbatch="echo no account >&2; exit 1")
    sweep, said = _sweep(tmp_path, 1, None), []
    (element,) = sweep.elements
    display = Display([element.training], 1)
    monkeypatch.setattr(display, "say", said.append)
    for _ in range(3):
        sweep.look(display, 0)
        assert not element.is_due  # the controller is not asked for it at every look
        element.not_before = 0.0
    (line,) = said
    assert "sbatch: no account; asked again" in line


def test_a_sweep_does_not_wait_in_silence_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_array, "held", partial(lease_module.held, term=0.2))
    lease = Lease(tmp_path / ".submitting", term=0.2)
    assert lease.take()
    try:
        refusal = pytest.raises(UsageError, match=r"\.submitting is held by process \d+")
        with refusal, alone(tmp_path):
            pass
    finally:
        lease.release()
