from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import demo
from benchmarks.__main__ import main
from benchmarks.demo import CONFIGS, FIGURE_ORDER, describe_run
from benchmarks.engines.local import Training
from benchmarks.provenance import provenance
from smd_hooks import load_runs
from smd_hooks.theory import LionRule
from tests.analysis.work_dirs import TURNED, launch, perfect_samples, turned_samples, weight
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


def test_a_turned_run_is_told_as_one_without_a_control_of_its_turned_weights(
    tmp_path: Path,
) -> None:
    steps = np.arange(800)
    rates = np.where(steps < 300, TURNED.lr, TURNED.lr / 10)
    samples = turned_samples(steps, rates, weights=3)
    late = (samples["weight"] == 0) & (samples["step"] >= 700)
    samples["angular_update"] *= np.where(late, 1.02, 1.0)
    samples["weight_decay"][samples["weight"] == 2] = 0.0
    rule = TURNED.to_json()
    ordinary = {"rule": LionRule(TURNED.lr, 0.0).to_json(), "no_prediction": ""}
    weights = [
        weight("a", rule=rule),
        weight("fc.weight", invariant=False, rule=rule),
        weight("head.weight", invariant=False, **ordinary),
    ]
    launch(tmp_path / "run", "20260101_000000", [], samples, {"first_step": 0, "weights": weights})
    _, left_out, turned = describe_run(load_runs(tmp_path)[0])
    assert left_out.startswith("  not scale-invariant: fc, head ")
    high, low = (f"{TURNED.at(lr, 0.005).angular_update:.2e}" for lr in (rates[0], rates[-1]))
    assert f"set angle, {high} then {low} radians per step" in turned
    assert "Δ misses it by 2.0e-02 of it" in turned
    assert "‖w‖ its first value by 0.0e+00 of that" in turned


def test_a_training_that_fails_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_one(trainings: list[Training]) -> list[Training]:
        assert {t.name: t.config for t in trainings} == CONFIGS
        (failed,) = [t for t in trainings if t.name == "detection"]
        assert failed.work_dir == tmp_path / "detection"
        failed.work_dir.mkdir()
        failed.console_file.write_text("a line\nerror: no disk\n")
        return [failed]

    for write in ("write_digits", "write_scenes"):
        monkeypatch.setattr(demo, write, lambda folder: None)
    monkeypatch.setattr(demo, "train", fail_one)
    assert main(["demo", "--work-dir", str(tmp_path)]) == 1
    assert "detection failed: error: no disk" in capsys.readouterr().out
    monkeypatch.setattr(demo, "train", lambda trainings: [])
    assert main(["demo", "--work-dir", str(tmp_path)]) == 0


def test_provenance_names_command_commit_device_and_date() -> None:
    text = "\n".join(provenance("some command", 12.3))
    assert "`some command` (12 s)" in text
    assert re.search(r"commit: ([0-9a-f]{40}|unknown)", text)
    assert re.search(r"date: \d{4}-\d\d-\d\d", text)
    assert re.search(r"device: .+", text)
