"""Trainings of two processes as one job."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.engines import slurm_array
from benchmarks.engines.slurm_array import submit
from benchmarks.engines.slurm_queue import Job, jobs_in_queue
from benchmarks.engines.training import Training
from smd_hooks import load_runs
from tests.benchmarks.sweep.small import write_suite_file

from .conftest import LENGTH, Command, alive, hurry, notify, wait_until


@pytest.mark.slow
def test_two_processes_train_together_and_go_on_together(
    tmp_path: Path, config: Path, benchmarks: Callable[..., Command]
) -> None:
    """Both leave when told to, and what they are told to goes back to the queue."""
    for_two = tmp_path / "for_two.py"
    for_two.write_text(f"{config.read_text()}\nauto_scale_lr = dict(base_batch_size=32)\n")
    entry = {"id": "digits", "figure": "none", "runs": {"plain": str(for_two)}, "seeds": [0]}
    suite, root = write_suite_file(tmp_path, entry), tmp_path / "runs"
    sweep = benchmarks(
        *("sweep", str(suite), "--work-dir", str(root), "--engine", "slurm"),
        *("--slurm", "gres=none"),
    )
    name = "digits-plain-seed0"
    wait_until(lambda: (root / name / "last_checkpoint").exists())
    job = alive(root, [name])[name]
    notify(job)
    hurry(job)
    assert sweep.end() == 0, sweep.output
    (run,) = load_runs(root)
    assert (run.status, run.gpus, len(run.launches)) == ("finished", 2, 2)
    assert list(run.samples["step"].unique()) == [*range(LENGTH)]


def test_each_process_sees_all_of_the_jobs_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the one of its own number on the node, as MMEngine's launcher does."""
    say = "echo $SLURM_LOCALID of ${CUDA_VISIBLE_DEVICES-any}, threads $OMP_NUM_THREADS"
    line = shlex.join([str(tmp_path / "run"), "bash", "-c", say])
    monkeypatch.setattr(slurm_array, "task", lambda training: line)
    training = Training("run", "c.py", tmp_path / "run", processes=2)
    (tmp_path / "slurm").mkdir()
    place = submit([training], tmp_path / "slurm", [], None)["run"]
    wait_until(lambda: any(job.place == place and job.has_ended for job in jobs_in_queue()))
    said = sorted(training.console_file.read_text().splitlines())
    assert said == [f"{number} of 0,1, threads 1" for number in range(2)]


@pytest.mark.slow
def test_one_that_goes_back_often_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster's max_batch_requeue, five by default, does not count these."""
    often = 7
    say = (
        f"cd {shlex.quote(str(tmp_path / 'run'))}; n=$(cat last_checkpoint || echo 0); "
        f"echo $((n + 1)) >last_checkpoint; [ $n -eq {often} ] || exit 75"
    )
    line = shlex.join([str(tmp_path / "run"), "bash", "-c", say])
    monkeypatch.setattr(slurm_array, "task", lambda training: line)
    training = Training("run", "c.py", tmp_path / "run")
    (tmp_path / "slurm").mkdir()
    place = submit([training], tmp_path / "slurm", ["--gres=none"], None)["run"]
    for start in range(1, often + 1):
        wait_until(lambda start=start: training.checkpoint == str(start))
        time.sleep(2.0)  # what starts within a second of its requeue finds its credential revoked
        hurry(Job(place, "PENDING"))
    wait_until(lambda: any(job.place == place and job.has_ended for job in jobs_in_queue()))
    assert training.checkpoint == str(often + 1)
