from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo import CONFIGS, FIGURE_ORDER, _Training, describe_run
from benchmarks.provenance import provenance
from smd_hooks import load_runs
from smd_hooks.records import RunState, write_state
from tests.analysis.work_dirs import launch, perfect_samples, weight
from tests.conftest import ROOT


def test_every_run_of_the_demo_has_its_config_and_its_column() -> None:
    assert sorted(CONFIGS) == sorted(FIGURE_ORDER)
    assert all((ROOT / config).is_file() for config in CONFIGS.values())


def test_a_run_is_told_in_words(tmp_path: Path) -> None:
    steps = np.arange(800)
    samples = perfect_samples(steps, np.where(steps < 300, 0.1, 0.01), weights=2)
    samples["angular_update"] *= np.where(samples["weight"] == 1, 3.0, 1.0)
    weights = [weight("a"), weight("fc.weight", invariant=False)]
    launch(tmp_path / "run", "20260101_000000", [], samples, {"first_step": 0, "weights": weights})
    name, left_out, control, drop = describe_run(load_runs(tmp_path)[0])
    assert name == "run"
    assert left_out == "  not scale-invariant: fc (reaches the loss before any norm)"
    # three times what it should be, and after one relaxation time of climbing
    assert "(median of 1): Δ/Δ* 3.00, 1.4" in control
    assert "trajectory_error 1.1" in control
    assert "at the lr drop by 10: 0.32 (1/√k is 0.32)" in drop


def test_progress_is_read_off_the_newest_launch_of_this_demo(tmp_path: Path) -> None:
    training = _Training("run", "config.py", tmp_path)
    assert training.progress() == (0, None)
    write_state(tmp_path / "run" / "20260101_000000", RunState("running", 5, 10))
    assert training.progress() == (5, 10)
    training.launched_at = 1e12  # what an earlier demo left does not count
    assert training.progress() == (0, None)


def test_a_failed_run_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = _Training("run", str(tmp_path / "nowhere.py"), tmp_path)
    monkeypatch.chdir(ROOT)
    training.start()
    assert training.process is not None
    assert training.process.wait(timeout=120) == 2
    assert "nowhere.py does not exist" in training.last_words()
    assert sys.executable not in training.last_words()


def test_provenance_names_command_commit_device_and_date() -> None:
    text = "\n".join(provenance("some command", 12.3))
    assert "`some command` (12 s)" in text
    assert re.search(r"commit: ([0-9a-f]{40}|unknown)", text)
    assert re.search(r"date: \d{4}-\d\d-\d\d", text)
    assert re.search(r"device: .+", text)
