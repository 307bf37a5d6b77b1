"""Trainings from the command line: they learn, by one process or two, compiled or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.pipelines.demo_data.text import write_text
from tests.benchmarks.pipelines.language.token_folders import tokens_of
from tests.conftest import ROOT

CONFIG = Path(__file__).parent / "configs" / "tiny.py"
BOUND = 100 * torch.finfo(torch.float32).eps
"""As in the tests of several processes of any pipeline: rounding, grown over a few steps."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("data"))


def train(text: Path, work_dir: Path, *options: str, processes: int = 1) -> dict[str, Any]:
    """Train; return the last checkpoint's weights, and the validation's loss under its name."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    several = processes > 1
    roots = [f"{split}_dataloader.dataset.data_root={text}" for split in ("train", "val")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", *(launcher if several else []), "benchmarks", "run"),
            *(str(CONFIG), "--work-dir", str(work_dir)),
            *(("--launcher", "pytorch") if several else ()),
            *("--cfg-options", *roots, *options),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (scalars,) = work_dir.glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    (loss,) = (line["val/loss"] for line in lines if "val/loss" in line)
    (path,) = work_dir.glob("iter_*.pth")
    weights = torch.load(path, weights_only=False)["state_dict"]
    return {**weights, "val/loss": torch.tensor(loss)}


def difference(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """The largest difference in any tensor, relative to the tensor's largest entry."""
    assert found.keys() == wanted.keys()
    return max(
        float((found[name] - value).abs().max() / value.abs().max().clamp(min=1e-3))
        for name, value in wanted.items()
    )


@pytest.fixture(scope="module")
def alone(text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(text, tmp_path_factory.mktemp("alone"))


HALF = "train_dataloader.batch_size=4"


@pytest.mark.slow
@pytest.mark.parametrize("options", [[HALF], [HALF, "model_wrapper_cfg.type=FSDP2"]])
def test_two_processes_train_what_one_does(
    text: Path, tmp_path: Path, alone: dict[str, Any], options: list[str]
) -> None:
    two = train(text, tmp_path, *options, processes=2)
    assert difference(two, alone) <= BOUND


@pytest.mark.slow
def test_control_half_the_batch_trains_something_else(
    text: Path, tmp_path: Path, alone: dict[str, Any]
) -> None:
    assert difference(train(text, tmp_path, HALF), alone) > 1000 * BOUND


@pytest.mark.slow
def test_a_compiled_step_trains_the_same(text: Path, tmp_path: Path, alone: dict[str, Any]) -> None:
    """Graphs are captured and differentiated as by MMEngine's ``compile=True``, without C++."""
    compiled = train(text, tmp_path, "compile.backend=aot_eager")
    assert difference(compiled, alone) <= BOUND


@pytest.mark.slow
def test_it_learns_more_than_how_often_each_character_comes(text: Path, tmp_path: Path) -> None:
    shares = np.bincount(tokens_of(text, "val"), minlength=75) / len(tokens_of(text, "val"))
    entropy = -sum(share * np.log(share) for share in shares if share)
    options = [
        "optim_wrapper.optimizer._delete_=True",
        "optim_wrapper.optimizer.type=AdamW",
        "optim_wrapper.optimizer.lr=0.01",
        *("train_cfg.max_iters=200", "train_cfg.val_interval=200"),
        *("default_hooks.checkpoint.interval=200", "custom_hooks=[]"),
    ]
    assert train(text, tmp_path, *options)["val/loss"] < entropy - 0.2
