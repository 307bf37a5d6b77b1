from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.__main__ import main
from smd_hooks.records import read_suite
from tests.benchmarks.sweep.small import write_suite_file
from tests.conftest import ROOT


@pytest.mark.slow
def test_two_replicas_are_trained_told_of_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    short = {"train_cfg.max_iters": 30, "train_cfg.val_interval": 30}
    short |= {"train_cfg.dynamic_intervals": None}
    suite = write_suite_file(
        tmp_path,
        {
            "id": "smd-fig2",
            "figure": "Fig. 2",
            "runs": {"sgdm": "configs/imagenet/resnet50_constant-lr_8xb32-450k.py"},
            "seeds": [0],
            "replica": {
                "options": {"": short},
                "controls": {
                    "strong": {
                        "of": "sgdm",
                        "options": {"optim_wrapper.optimizer.weight_decay": 0.1},
                    }
                },
            },
        },
    )
    root, results = tmp_path / "runs", tmp_path / "results"
    command = ["sweep", str(suite), "--replica", "--work-dir", str(root)]
    assert main([*command, "--results", str(results)]) == 0
    table = pd.read_csv(results / "table.csv").set_index("run")
    assert list(table["status"]) == ["finished", "finished"]
    assert list(table["iters"]) == [30, 30]
    assert table.loc["smd-fig2-strong-seed0", "weight_decay"] == 0.1
    assert table["accuracy/top1"].notna().all()
    assert (results / "smd-fig2.png").is_file()
    scales = {run.role: run.scale for run in read_suite(root).values()}
    assert scales["sgdm"].startswith("time-scaled by 25: 30 of 500 steps for 450,000, weight decay")
    assert scales["strong"].endswith("optim_wrapper.optimizer.weight_decay=0.1")
    assert "weight decay ×" not in scales["strong"]
    launches = sorted(root.glob("*/2*"))
    capsys.readouterr()
    assert main(command) == 0
    assert "0 runs to train" not in capsys.readouterr().out
    assert sorted(root.glob("*/2*")) == launches
