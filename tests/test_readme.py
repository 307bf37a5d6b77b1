"""What the README tells a newcomer to paste, pasted."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from smd_hooks import load_runs
from smd_hooks.analysis import agreement_table
from smd_hooks.cli import main
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(*containing: str) -> str:
    """Return the one block of Python that has all these words in it."""
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (found,) = [text for text in blocks if all(word in text for word in containing)]
    return found


def test_the_plain_pytorch_loop_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("StepProbe")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "angular_update" in done.stdout
    assert "0.weight" in done.stdout


def test_the_plain_pytorch_loop_with_lion_ar_runs() -> None:
    told = """
turning = optimizer.param_groups[0]["param_names"]
radii = [state["radius"].norm() for state in optimizer.state.values() if "radius" in state]
print(turning, float(radii[0] / model[0].weight.norm()) - 1 < 1e-6, len(radii))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", block("find_scale_invariant") + told],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['0.weight'] True 1\n"


def test_every_name_of_ours_is_importable() -> None:
    names = set(re.findall(r"\bsmd_hooks\.(\w+(?:\.\w+)*)", README))
    names |= {f"{n}" for n in re.findall(r"`(\w+(?:Hook|A|AR|SGD|AdamW))(?:\(.*?\))?`", README)}
    assert len(names) >= 8
    for name in sorted(names):
        home, _, last = f"smd_hooks.{name}".rpartition(".")
        assert hasattr(importlib.import_module(home), last), name


def test_every_file_that_is_named_exists() -> None:
    for path in re.findall(r"(?:configs|results)/[\w./-]+\.(?:py|md|png)", README):
        assert (ROOT / path).is_file(), path


def test_every_column_that_is_explained_is_in_the_table() -> None:
    columns = set(agreement_table([]).columns)
    explained = re.search(r"\| column \| meaning \|(.*?)\n\n", README, flags=re.DOTALL)
    assert explained is not None
    names = re.findall(r"^\| `(\w+)`", explained.group(1), flags=re.MULTILINE)
    assert len(names) >= 6
    assert set(names) <= columns


@pytest.mark.slow
def test_three_lines_measure_a_stock_mmdet_config(tmp_path: Path, shared_data: Path) -> None:
    """On real photos; nothing in the stock recipe is scale-invariant, and the hook says why."""
    root = shared_data / "coco_small"
    (tmp_path / "mine.py").write_text(block("mmdet::mask_rcnn", "SMDHook"))
    ann_file = root / "annotations" / "instances_val2017.json"
    options = {
        "train_dataloader.dataset.data_root": f"{root}/",
        "val_dataloader.dataset.data_root": f"{root}/",
        "val_evaluator.ann_file": ann_file,
        "train_dataloader.dataset.indices": 4,
        "val_dataloader.dataset.indices": 2,
        "train_dataloader.dataset.pipeline.2.scale": "(320,200)",
        "val_dataloader.dataset.pipeline.1.scale": "(320,200)",
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
        "val_dataloader.num_workers": 0,
        "val_dataloader.persistent_workers": False,
        "train_cfg.max_epochs": 1,
        "custom_hooks.0.interval": 1,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "run", str(tmp_path / "mine.py")]
        + ["--work-dir", str(tmp_path / "run"), "--seed", "0", "--cfg-options"]
        + [f"{key}={value}" for key, value in options.items()],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    log = next((tmp_path / "run").glob("*/*.log")).read_text()
    assert "SMD: 0 of 74 weight matrices are scale-invariant." in log
    (run,) = load_runs(tmp_path / "run")
    assert run.status == "finished"
    reasons = run.weights.set_index("parameter")["reason"]
    assert reasons["backbone.layer1.0.conv1.weight"] == "frozen (requires_grad=False)"
    for name, reason in reasons.items():
        if re.match(r"backbone\.layer[234].*(conv\d|downsample\.0)\.weight", str(name)):
            assert "BatchNorm is in eval mode" in reason, name
    assert "before any norm" in reasons["rpn_head.rpn_conv.weight"]
    (row,) = agreement_table([run]).to_dict("records")
    assert row["si_params"] == "0/74"
    assert row["verdict"].startswith("nothing is scale-invariant: its BatchNorm is in eval mode")
    assert (row["task"], row["dataset"]) == ("detection", "coco_small")


def test_the_forecast_that_is_shown_is_what_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = re.findall(r"^smd-hooks (predict .*)$", README, flags=re.MULTILINE)
    monkeypatch.chdir(ROOT)
    assert main(line.split()) == 0
    assert f"```\n{capsys.readouterr().out.strip()}\n```" in README
