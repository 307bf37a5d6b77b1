"""``python -m benchmarks run`` from a config to a row in the table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pipelines.demo_data.digits import write_digits
from benchmarks.run import describe
from smd_hooks import load_runs
from smd_hooks.analysis import agreement_table
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


def test_errors_become_one_line() -> None:
    assert describe(RuntimeError("cannot read a")) == "cannot read a"
    assert describe(KeyError("x")) == "KeyError: 'x'"
    assert describe(ValueError()) == "ValueError"
    worker = "Caught RuntimeError in DataLoader worker process 0.\nOriginal Trace\nRuntimeError: b"
    assert describe(RuntimeError(worker)) == "b"
