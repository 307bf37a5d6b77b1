from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis import agreement_table, load_runs, write_table
from smd_hooks.analysis.figures import draw_angular_updates
from smd_hooks.analysis.report.series import a_priori_ratio
from smd_hooks.analysis.table.formats import render_terminal
from smd_hooks.analysis.table.table import COLUMNS
from smd_hooks.cli import main
from tests.analysis.work_dirs import launch, perfect_samples, weight

DETECTOR = """
default_scope = 'mmdet'
model = dict(type='MaskRCNN', backbone=dict(type='ResNet', depth=50))
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
                     accumulative_counts=2)
train_dataloader = dict(batch_size=2, dataset=dict(type='RepeatDataset', times=3, dataset=dict(
    type='CocoDataset', data_root='data/coco/')))
train_cfg = dict(max_epochs=12)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    steps = np.arange(800)
    run = {
        "first_step": 0,
        "world_size": 2,
        "seed": 7,
        "weights": [weight("a"), weight("b"), weight("fc", invariant=False)],
    }
    launch(
        tmp_path / "ours",
        "20260101_000000",
        [{"lr": 0.1, "step": 100}, {"accuracy/top1": 97.5, "accuracy/top5": 99.9, "step": 100}],
        perfect_samples(steps, np.where(steps < 300, 0.1, 0.01), weights=3),
        run,
    )
    foreign = launch(
        tmp_path / "theirs",
        "20260102_000000",
        [
            {"lr": 1e-4, "step": 10},
            {"coco/bbox_mAP": 0.411, "coco/segm_mAP": 0.371, "coco/bbox_mAP_s": -1.0, "step": 12},
        ],
        config=DETECTOR,
    )
    (foreign / "20260102_000000.log").write_text("GPU number: 8\n")
    return tmp_path


def test_every_column_of_both_kinds_of_run(folder: Path) -> None:
    table = agreement_table(load_runs(folder)).set_index("run")
    assert list(table.columns) == list(COLUMNS)[1:]
    ours, theirs = table.loc["ours"].to_dict(), table.loc["theirs"].to_dict()
    assert {k: ours[k] for k in ("status", "task", "dataset", "model", "optimizer")} == {
        "status": "finished",
        "task": "classification",
        "dataset": "imagenette",
        "model": "resnet50",
        "optimizer": "SGD(momentum=0.9)",
    }
    assert (ours["lr"], ours["weight_decay"], ours["batch_size"]) == (0.1, 0.005, 64)
    assert (ours["iters"], ours["seed"]) == (100, 7)
    assert (ours["accuracy/top1"], ours["accuracy/top5"]) == (97.5, 99.9)
    assert ours["si_params"] == "2/3"
    assert ours["angle_ratio"] == pytest.approx((1 + 9 * np.exp(-0.9)) ** -0.5, abs=0.02)
    assert ours["in_equilibrium"] == 0
    assert ours["trajectory_error"] < 0.01
    assert ours["verdict"].startswith("below equilibrium: 1.0 relaxation times")
    assert {k: theirs[k] for k in ("status", "task", "dataset", "model", "optimizer")} == {
        "status": "finished",
        "task": "detection",
        "dataset": "coco",
        "model": "MaskRCNN ResNet-50",
        "optimizer": "AdamW",
    }
    assert theirs["batch_size"] == 2 * 8 * 2
    assert (theirs["coco/bbox_mAP"], theirs["coco/segm_mAP"]) == (0.411, 0.371)
    assert theirs["verdict"] == "not measured"
    assert pd.isna(theirs["angle_ratio"])


@pytest.mark.parametrize("suffix", ["csv", "md", "tex", "html", "parquet"])
def test_every_format_holds_the_figures(folder: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    assert main(["table", str(folder), "-o", str(path)]) == 0
    if suffix == "parquet":
        assert pd.read_parquet(path)["coco/bbox_mAP"].tolist()[1] == 0.411
    elif suffix == "csv":
        assert pd.read_csv(path)["accuracy/top1"].tolist()[0] == 97.5
    else:
        text = path.read_text()
        assert "97.5" in text
        assert "0.411" in text
        assert "nan" not in text.lower()


def test_the_terminal_shows_no_empty_column_and_names_the_run_in_each_block(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(folder / "theirs")]) == 0
    out = capsys.readouterr().out
    assert "0.411" in out
    assert "accuracy" not in out
    narrow = render_terminal(agreement_table(load_runs(folder)), width=60)
    assert narrow.count("theirs") > 2
    assert max(map(len, narrow.splitlines())) <= 60 + 75  # the verdict is never cut


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["."], "no run found below"),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["table", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unknown_format_is_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(folder), "-o", str(tmp_path / "table.docx")]) == 2
    assert "use one of .csv" in capsys.readouterr().err
    assert not (tmp_path / "table.docx").exists()


def test_the_picture_shows_measured_runs_only(folder: Path, tmp_path: Path) -> None:
    runs = load_runs(folder)
    draw_angular_updates(runs, tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    assert text.count("<svg") == 1
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_angular_updates(runs[1:], tmp_path / "none.png")
    steps, curve = a_priori_ratio(runs[0])
    assert steps[0] == 299
    assert curve[1] == pytest.approx(10**-0.5, rel=1e-6)


def test_writing_needs_a_known_suffix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no table format"):
        write_table(pd.DataFrame(), tmp_path / "table")


def test_a_scaled_learning_rate_is_the_one_that_was_used(tmp_path: Path) -> None:
    """MMEngine logs and dumps the rate before it scaled it."""
    config = DETECTOR + "auto_scale_lr = dict(base_batch_size=16, enable=True)\n"
    folder = launch(tmp_path, "20260101_000000", config=config)
    (folder / "20260101_000000.log").write_text("GPU number: 4\n")
    (row,) = agreement_table(load_runs(tmp_path)).to_dict("records")
    assert row["lr"] == pytest.approx(1e-4 * 2 * 4 / 16)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("train_cfg = dict(max_iters='abc')", "train_cfg.max_iters is 'abc'"),
        ("optim_wrapper = 'x'", "optim_wrapper is 'x'"),
        ("model = [1]", r"model is \[1\]"),
        ("train_dataloader = dict(dataset=5)", "train_dataloader.dataset is 5"),
    ],
)
def test_one_odd_run_costs_no_other_its_row_and_itself_no_more_than_that(
    folder: Path, config: str, named: str
) -> None:
    launch(folder / "odd", "20260103_000000", [{"lr": 1, "step": 3}], config=config)
    with pytest.warns(UserWarning, match=f"odd.*config.py: left out, {named}"):
        table = agreement_table(load_runs(folder)).set_index("run")
    assert table.loc["odd", "verdict"] == "not measured"
    assert table.loc["odd", "iters"] == 3
    assert table.loc["ours", "accuracy/top1"] == 97.5


def test_a_scaling_that_cannot_be_scaled_leaves_the_rate_empty(tmp_path: Path) -> None:
    launch(tmp_path, "20260103_000000", config=DETECTOR + "auto_scale_lr = dict(enable=True)\n")
    (row,) = agreement_table(load_runs(tmp_path)).to_dict("records")
    assert row["lr"] is None


@pytest.mark.parametrize(
    ("optimizer", "hooks", "shown"),
    [
        ("type='smd_hooks.LionAR', lr=0.1", "", "LionAR"),
        ("type='LionAR', lr=0.1, nesterov=True", "", "LionAR(nesterov=True)"),
        ("type='RotationalSGD', lr=0.1, momentum=0.8", "", "RotationalSGD(momentum=0.8)"),
        ("type='SGD', lr=0.1", "dict(type='RotationalUpdateHook')", "SGD, turned"),
        ("type='SGD', lr=0.1", "dict(type='smd_hooks.EquilibriumRescaleHook')", "SGD, rescaled"),
    ],
)
def test_how_optimizers_are_shown(tmp_path: Path, optimizer: str, hooks: str, shown: str) -> None:
    config = f"optim_wrapper = dict(optimizer=dict({optimizer}))\ncustom_hooks = [{hooks}]\n"
    launch(tmp_path, "20260101_000000", config=config)
    (row,) = agreement_table(load_runs(tmp_path)).to_dict("records")
    assert row["optimizer"] == shown


def test_the_run_column_is_always_shown() -> None:
    empty = pd.DataFrame([{"run": "", "status": "finished"}])
    assert "finished" in render_terminal(empty)
