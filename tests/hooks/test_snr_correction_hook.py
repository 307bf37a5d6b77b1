"""SNRCorrectionHook in MMEngine runs, from config to table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner

from smd_hooks import load_runs
from smd_hooks.analysis import agreement_table, predict
from smd_hooks.optim import LionAR
from tests.hooks.runs import tiny_runner

HOOKS: list[dict[str, Any]] = [
    {"type": "SMDHook", "interval": 1},
    {"type": "SNRCorrectionHook", "interval": 2},
]


def runner(work_dir: Path, iterations: int = 160, **settings: Any) -> Runner:
    return tiny_runner(
        work_dir,
        HOOKS,
        iterations,
        lambda m: LionAR(m.parameters(), 0.01, weight_decay=0.1),
        **{"accumulation": 2, **settings},
    )


def test_the_table_knows_the_corrected_angle(tmp_path: Path) -> None:
    runner(tmp_path).train()
    (run,) = load_runs(tmp_path)
    factors = run.samples.set_index("weight").loc[0, "angle_factor"].to_numpy()
    assert len(factors) == 80
    assert (factors <= 1).all()
    assert factors.min() < 0.95
    (row,) = agreement_table([run]).to_dict("records")
    assert row["verdict"] == "turned as set: in equilibrium by construction"
    assert row["angle_ratio"] == pytest.approx(1, abs=1e-3)
    assert row["trajectory_error"] < 1e-3
    assert ratios(run.samples, run) == pytest.approx(1, abs=1e-3)
    # the control: without the column angles seem too small
    assert ratios(run.samples.assign(angle_factor=1.0), run).min() < 0.95


def ratios(samples: Any, run: Any) -> Any:
    told = predict(samples, run.weights)
    return (told["angular_update"] / told["equilibrium_angle"]).to_numpy()


def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(tmp_path: Path) -> None:
    runs = [runner(tmp_path / "whole", 40)]
    runs[0].train()
    checkpoint = str(tmp_path / "whole" / "iter_20.pth")
    runs.append(runner(tmp_path / "resumed", 40, resume=True, load_from=checkpoint))
    runs[1].train()
    whole, resumed = (list(run.model.parameters()) for run in runs)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_a_run_that_does_not_show_its_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one batch per step does not show its noise"):
        runner(tmp_path, accumulation=1).train()
    with pytest.raises(ValueError, match="SNRCorrectionHook: interval must be a whole number"):
        tiny_runner(tmp_path, [{"type": "SNRCorrectionHook", "interval": 0}])
