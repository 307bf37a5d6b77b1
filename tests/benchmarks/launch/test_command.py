"""``python -m benchmarks run`` from a config to a row in the table."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from benchmarks.errors import UsageError
from benchmarks.launch import command as run_module
from benchmarks.launch.command import (
    add_parser,
    build_runner,
    describe,
    is_first_process,
    load_config,
    other_batch,
)
from benchmarks.launch.interrupts import REQUEUE
from benchmarks.launch.runner import SuiteRunner
from benchmarks.pipelines.demo_data.digits import write_digits
from smd_hooks import load_runs
from smd_hooks.analysis import agreement_table
from smd_hooks.records import read_state
from tests.conftest import ROOT

DIGITS = "configs/demo/resnet_digits.py"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return write_digits(tmp_path / "data")


def run(work_dir: Path, digits: Path, *options: str, flags: tuple[str, ...] = ()) -> tuple:
    roots = [f"{split}_dataloader.dataset.data_root={digits}" for split in ("train", "val")]
    command = [sys.executable, "-m", "benchmarks", "run", DIGITS, "--work-dir", str(work_dir)]
    done = subprocess.run(
        [*command, *flags, "--cfg-options", *roots, "val_dataloader.batch_size=500", *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    (row,) = agreement_table(load_runs(work_dir)).to_dict("records")
    return done, row


def test_a_run_ends_as_a_row_and_resumes_without_a_seam(tmp_path: Path, digits: Path) -> None:
    work_dir = tmp_path / "run"
    short = ("train_cfg.max_iters=60", "default_hooks.checkpoint.interval=30")
    done, row = run(work_dir, digits, *short, "param_scheduler.milestones=[40]")
    assert done.returncode == 0, done.stderr
    assert row["status"] == "finished"
    assert row["si_params"] == "9/10"
    assert row["accuracy/top1"] > 10
    assert row["trajectory_error"] < 0.05
    done, row = run(
        work_dir,
        digits,
        "train_cfg.max_iters=90",
        "param_scheduler.milestones=[40]",
        flags=("--resume", "--seed", "3"),
    )
    assert done.returncode == 0, done.stderr
    assert (row["iters"], row["seed"], row["status"]) == (90, 3, "finished")
    (stitched,) = load_runs(work_dir)
    assert sorted(set(stitched.samples["step"])) == list(range(90))


def test_an_unreadable_image_in_mid_training(tmp_path: Path, digits: Path) -> None:
    """The last of 2 batches is broken, so the first is done and recorded."""
    for image in sorted((digits / "train").rglob("*.png"))[20:]:
        image.write_bytes(image.read_bytes()[:60])
    done, row = run(
        tmp_path / "run",
        digits,
        "train_dataloader.sampler.shuffle=False",
        "train_dataloader.batch_size=10",
        "train_dataloader.dataset.in_memory=False",
    )
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert "the run failed at iteration 2" in line
    assert "cannot read image" in line
    assert ".png" in line
    assert "Traceback" not in done.stderr
    assert row["status"] == "failed"
    assert row["verdict"].startswith("failed: cannot read image")
    (failed,) = load_runs(tmp_path / "run")
    assert sorted(set(failed.samples["step"])) == [0, 1]
    log = next((tmp_path / "run").glob("*/*.log")).read_text()
    assert "Traceback" in log


def test_a_loss_that_is_no_number(tmp_path: Path, digits: Path) -> None:
    done, row = run(tmp_path / "run", digits, "optim_wrapper.optimizer.lr=1e30")
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert "the loss is not finite since iteration" in line
    assert row["status"] == "failed"
    assert len(load_runs(tmp_path / "run")[0].samples) > 0


@pytest.mark.parametrize(
    ("processes", "accumulated", "scaling", "said"),
    [
        (1, 1, {"base_batch_size": 256}, "batch 32 where the config's learning rate is for 256"),
        (8, 1, {"base_batch_size": 256}, ""),
        (1, 8, {"base_batch_size": 256}, ""),
        (2, 2, {"base_batch_size": 256}, "batch 128 where"),
        (1, 1, {"base_batch_size": 256, "enable": True}, ""),
        (1, 1, {}, ""),
    ],
)
def test_another_batch_than_the_learning_rates(
    processes: int, accumulated: int, scaling: dict, said: str
) -> None:
    cfg = Config(
        {
            "train_dataloader": {"batch_size": 32},
            "optim_wrapper": {"accumulative_counts": accumulated},
            "auto_scale_lr": scaling,
        }
    )
    line = other_batch(cfg, processes)
    assert line.startswith(said) if said else line == ""
    assert "--auto-scale-lr" in line or not said


@pytest.mark.parametrize("shared", ["empty", "another", "its own"])
def test_what_cannot_be_built_leaves_no_traces_and_spares_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    work_dir = tmp_path / "work_dirs" / "mine"
    other = {
        "empty": tmp_path / "elsewhere",
        "another": work_dir.parent / "another" / "log",
        "its own": work_dir / "of an earlier launch",
    }[shared]
    if shared == "its own":
        other.mkdir(parents=True)

    def from_cfg(cfg: Config) -> Runner:
        (work_dir / "20260101_000000").mkdir(parents=True)
        (work_dir / "config.py").touch()
        other.mkdir(parents=True, exist_ok=True)  # another command starts meanwhile
        raise KeyError("no such model")

    monkeypatch.setattr(Runner, "from_cfg", from_cfg)
    with pytest.raises(UsageError, match="cannot be built: KeyError: 'no such model'"):
        build_runner(Config({"work_dir": str(work_dir)}))
    assert other.is_dir()
    assert work_dir.exists() is (shared == "its own")
    assert work_dir.parent.exists() is (shared != "empty")
    assert not (work_dir / "config.py").exists()
    assert not (work_dir / "20260101_000000").exists()


@pytest.mark.parametrize(("rank", "processes"), [(3, 4), (0, 4), (0, 1)])
def test_every_rank_says_why_and_the_first_writes_it_down(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: int,
    processes: int,
) -> None:
    monkeypatch.setattr(run_module, "get_rank", lambda: rank)
    monkeypatch.setattr(run_module, "get_world_size", lambda: processes)
    monkeypatch.setattr(run_module, "is_main_process", lambda: rank == 0)
    logger = logging.getLogger("nothing but a name")
    runner = SimpleNamespace(log_dir=tmp_path, iter=5, max_iters=10, logger=logger, hooks=[])
    run_module._fail(cast(Runner, runner), "cannot read image a.png")
    where = f" on rank {rank}" if processes > 1 else ""
    assert capsys.readouterr().err == (
        f"error: the run failed{where} at iteration 5: cannot read image a.png (log: {tmp_path})\n"
    )
    state = read_state(tmp_path)
    assert (state.error if state else None) == ("cannot read image a.png" if rank == 0 else None)


@pytest.mark.slow
def test_one_that_is_told_to_end_says_so(tmp_path: Path, digits: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "run", DIGITS, "--work-dir", str(tmp_path / "a")]
    data = [f"{split}_dataloader.dataset.data_root={digits}" for split in ("train", "val")]
    started = subprocess.Popen(
        [*command, "--cfg-options", *data],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    until = time.monotonic() + 120
    while not list(tmp_path.glob("a/*/smd/state.json")) and time.monotonic() < until:
        time.sleep(0.2)
    started.terminate()
    line = started.communicate(timeout=60)[1].splitlines()[-1]
    assert "the run stopped at iteration" in line
    assert started.returncode == REQUEUE
    (ended,) = load_runs(tmp_path / "a")
    assert ended.status == "failed"
    assert ended.failure == "told to end (SIGTERM); goes on with --resume"
    assert ended.iterations > 0
    assert (tmp_path / "a" / "last_checkpoint").read_text().endswith("/interrupted.pth")


@pytest.mark.parametrize(
    ("launcher", "environment", "first"),
    [
        ("none", {"RANK": "3", "SLURM_PROCID": "2"}, True),  # each trains by itself
        ("pytorch", {"RANK": "0"}, True),
        ("pytorch", {"RANK": "3", "SLURM_PROCID": "0"}, False),
        ("slurm", {"SLURM_PROCID": "2"}, False),
        ("mpi", {"OMPI_COMM_WORLD_RANK": "1"}, False),
    ],
)
def test_the_first_of_several_processes(
    launcher: str, environment: dict[str, str], first: bool
) -> None:
    assert is_first_process(launcher, environment) is first


def test_errors_become_one_line() -> None:
    assert describe(RuntimeError("cannot read a")) == "cannot read a"
    assert describe(KeyError("x")) == "KeyError: 'x'"
    assert describe(ValueError()) == "ValueError"
    worker = "Caught RuntimeError in DataLoader worker process 0.\nOriginal Trace\nRuntimeError: b"
    assert describe(RuntimeError(worker)) == "b"


def test_resume_begins_with_the_weights_of_load_from_until_there_is_a_checkpoint(
    tmp_path: Path,
) -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    words = ["run", str(ROOT / DIGITS), "--resume", "--work-dir", str(tmp_path)]
    words += ["--cfg-options", "load_from=pretrained.pth"]
    begun = load_config(parser.parse_args(words))
    assert (begun.resume, begun.load_from) == (False, "pretrained.pth")
    (tmp_path / "iter_10.pth").touch()
    gone_on = load_config(parser.parse_args(words))
    assert (gone_on.resume, gone_on.load_from) == (True, None)
    words[words.index("--resume") + 1 : words.index("--resume") + 1] = ["epoch_3.pth"]
    named = load_config(parser.parse_args(words))
    assert (named.resume, named.load_from) == (True, "epoch_3.pth")


def test_a_full_disk_is_said_of_the_work_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(cfg: Config) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SuiteRunner, "from_cfg", full)
    with pytest.raises(UsageError, match=r"work dir .* cannot be written to: No space left"):
        build_runner(Config({"work_dir": str(tmp_path / "a")}))
    assert not (tmp_path / "a").exists()
