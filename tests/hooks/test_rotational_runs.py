"""SMDHook on runs whose optimizer turns weights by a set angle, from config to table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.runner import Runner

from smd_hooks import load_runs
from smd_hooks.analysis import agreement_table
from smd_hooks.optim import LionAR, RotationalSGD
from tests.hooks.runs import TinyModel, tiny_runner

WARMUP = {"type": "LinearLR", "by_epoch": False, "start_factor": 0.1, "end": 10}
DROP = {"type": "MultiStepLR", "by_epoch": False, "milestones": [30], "gamma": 0.1}


def runner(work_dir: Path, kind: type, iterations: int, **settings: Any) -> Runner:
    def optimizer(model: TinyModel) -> Any:
        return kind(model.parameters(), lr=0.01, weight_decay=0.1)

    hooks = [{"type": "SMDHook", "interval": 1}]
    run = tiny_runner(work_dir, hooks, iterations, optimizer, **settings)
    run.param_schedulers = [WARMUP, DROP]
    return run


@pytest.mark.parametrize(("kind", "band"), [(LionAR, 1e-4), (RotationalSGD, 0.05)])
def test_a_warmup_a_drop_and_a_resume_leave_the_angle_as_set(
    tmp_path: Path, kind: type, band: float
) -> None:
    runner(tmp_path, kind, 60).train()
    first = next(tmp_path.glob("*/smd")).parent
    first.rename(first.with_name("20000101_000000"))  # a launch of its own second
    runner(tmp_path, kind, 100, resume=True).train()
    (run,) = load_runs(tmp_path)
    assert len(run.launches) == 2
    weights = run.weights.set_index("parameter")
    rule = weights.loc["conv.weight", "rule"]
    assert (rule["type"], rule["peak_lr"]) == ("Rotational", 0.01)
    (row,) = agreement_table([run]).to_dict("records")
    assert row["verdict"] == "turned as set: in equilibrium by construction"
    assert row["angle_ratio"] == pytest.approx(1, abs=band)
    assert row["trajectory_error"] < band
    assert row["norm_ratio"] == pytest.approx(1, abs=1e-6)
    assert row["si_params"] == "1/2"
    samples = run.predicted.set_index("step")
    asked = samples["equilibrium_angle"]
    fall = {LionAR: 10, RotationalSGD: 10**0.5}[kind]
    assert asked[29] / asked[30] == pytest.approx(fall)
    assert asked[20] / asked[0] == pytest.approx(fall)
    lines = max(tmp_path.glob("*/vis_data/scalars.json")).read_text().splitlines()
    assert json.loads(lines[-1])["smd_ratio"] == pytest.approx(1, abs=band)
