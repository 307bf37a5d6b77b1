"""Sweeps on a real Slurm of two slots, and what happens to jobs there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks.engines.slurm_queue import ask
from smd_hooks import load_runs
from tests.benchmarks.sweep.small import write_suite_file

from .conftest import LENGTH, Command, alive, hurry, notify, wait_until

pytestmark = pytest.mark.slow

Start = Callable[..., Command]
ON_CPUS = ["--engine", "slurm", "--jobs", "2", "--slurm", "gres=none"]


def _suite(folder: Path, config: Path, roles: int, seeds: int) -> Path:
    runs = {role: str(config) for role in ("plain", "other")[:roles]}
    entry = {"id": "digits", "figure": "none", "runs": runs, "seeds": list(range(seeds))}
    return write_suite_file(folder, entry)


def _trains(folder: Path, name: str) -> bool:
    """Whether a run has begun, and has something to lose."""
    return (folder / name / "last_checkpoint").exists()


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / f"iter_{LENGTH}.pth", weights_only=False)
    return checkpoint["state_dict"]


def _submissions(folder: Path) -> int:
    return len(list(folder.glob("slurm/*/command")))


def test_six_runs_end_whole_and_once_whatever_happens_to_their_jobs(
    tmp_path: Path, config: Path, benchmarks: Start
) -> None:
    """One is cancelled, one requeued, one near its time limit: all are what they would be."""
    root, suite = tmp_path / "runs", _suite(tmp_path, config, 2, 3)
    command = ["sweep", str(suite), "--work-dir", str(root), *ON_CPUS]
    names = [f"digits-{role}-seed{seed}" for role in ("plain", "other") for seed in range(3)]
    sweep = benchmarks(*command)

    wait_until(lambda: sum(_trains(root, name) for name in names) == 2)
    jobs = alive(root, names)
    assert sorted(job.state for job in jobs.values()) == ["PENDING"] * 4 + ["RUNNING"] * 2
    cancelled, requeued = (name for name in names if jobs[name].state == "RUNNING")
    ask("scancel", str(jobs[cancelled].place))
    ask("scontrol", "requeue", str(jobs[requeued].place))

    others = [name for name in names if name not in (cancelled, requeued)]
    wait_until(lambda: any(_trains(root, name) for name in others))
    short = next(name for name in others if _trains(root, name))
    notify(jobs[short])
    hurry(jobs[requeued])
    hurry(jobs[short])

    assert sweep.end() == 1, sweep.output
    assert f"{cancelled} failed: cancelled, " in sweep.output
    assert f"{cancelled} failed: told to end (SIGTERM); goes on with --resume" in sweep.output
    runs = {run.name: run for run in load_runs(root)}
    assert {n for n in names if runs[n].status == "finished"} == {*names} - {cancelled}

    again = benchmarks(*command, "--results", str(tmp_path / "results"))
    assert again.end() == 0, again.output
    assert "1 runs to train, 5 there" in again.output
    table = pd.read_csv(tmp_path / "results" / "table.csv")
    assert sorted(table["run"]) == sorted(names)
    assert set(table["status"]) == {"finished"}
    assert set(table["iters"]) == {LENGTH}
    launches = {name: len(list((root / name).glob("2*_*/"))) for name in names}
    assert launches == {n: 2 if n in (cancelled, requeued, short) else 1 for n in names}
    assert _submissions(root) == 2

    _assert_as_if_undisturbed((cancelled, requeued, short), root, config, benchmarks)


def _assert_as_if_undisturbed(
    names: Sequence[str], root: Path, config: Path, benchmarks: Start
) -> None:
    whole = root.with_name("undisturbed")
    references = {
        name: benchmarks("run", str(config), "--work-dir", str(whole / name), "--seed", name[-1])
        for name in names
    }
    for name, reference in references.items():
        assert reference.end() == 0, reference.output
        found, expected = _weights(root / name), _weights(whole / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        (run,), (undisturbed,) = load_runs(root / name), load_runs(whole / name)
        pd.testing.assert_frame_equal(run.samples, undisturbed.samples)
        # the control: another seed's weights are others
        another = _weights(root / f"{name[:-1]}{(int(name[-1]) + 1) % 3}")
        assert not all(torch.equal(found[key], another[key]) for key in another)


def test_a_queue_is_adopted(tmp_path: Path, config: Path, benchmarks: Start) -> None:
    """Two sweeps at once and a third after a Ctrl-C: none submits what is in the queue."""
    root, suite = tmp_path / 'it\'s a "sweep" of 100%a $HOME', _suite(tmp_path, config, 1, 3)
    command = ["sweep", str(suite), "--work-dir", str(root), *ON_CPUS]
    names = [f"digits-plain-seed{seed}" for seed in range(3)]
    first, second = benchmarks(*command), benchmarks(*command)
    wait_until(lambda: any(_trains(root, name) for name in names))
    jobs = alive(root, names)
    assert sorted(jobs) == names
    first.interrupt()
    assert first.end() == 130
    arrays = {job.place.array for job in jobs.values()}
    assert f"scancel {arrays.pop()} cancels them" in first.output
    assert not arrays
    third = benchmarks(*command)
    assert second.end() == 0, second.output
    assert third.end() == 0, third.output
    assert _submissions(root) == 1
    runs = load_runs(root)
    assert [(run.name, run.status, len(run.launches)) for run in runs] == [
        (name, "finished", 1) for name in names
    ]


def test_what_a_more_urgent_job_displaces_goes_on(
    tmp_path: Path, config: Path, benchmarks: Start
) -> None:
    root, suite = tmp_path / "runs", _suite(tmp_path, config, 1, 1)
    name = "digits-plain-seed0"
    sweep = benchmarks("sweep", str(suite), "--work-dir", str(root), *ON_CPUS)
    wait_until(lambda: _trains(root, name))
    job = alive(root, [name])[name]
    ask("srun", "--partition=urgent", "--ntasks=2", "true")
    hurry(job)
    assert sweep.end() == 0, sweep.output
    (run,) = load_runs(root)
    assert (run.status, len(run.launches)) == ("finished", 2)


def test_a_refusal_is_told_in_a_line(tmp_path: Path, config: Path, benchmarks: Start) -> None:
    root, suite = tmp_path / "runs", _suite(tmp_path, config, 1, 1)
    command = ["sweep", str(suite), "--work-dir", str(root), "--engine", "slurm", "--slurm"]
    refused = benchmarks(*command, "partition=nowhere")
    assert refused.end() == 2
    (line,) = [line for line in refused.output.splitlines() if line.startswith("error: ")]
    assert "sbatch: " in line
    assert "invalid partition specified: nowhere" in line
