from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from smd_hooks.analysis import Run, load_runs
from smd_hooks.analysis.report.sweeps import Sweep, find_sweeps
from smd_hooks.records import PlannedRun, write_suite
from tests.analysis.report.sweep_runs import (
    BEYOND,
    DIVERGED,
    EXPERIMENT,
    RATES,
    ROLES,
    SEEDS,
    WARMUPS,
    final_loss,
    write_run,
    write_sweep,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("sweep")
    write_sweep(folder)
    return load_runs(folder)


@pytest.fixture(scope="module")
def sweep(runs: list[Run]) -> Sweep:
    (found,) = find_sweeps(runs)
    return found


def _grid(
    folder: Path,
    finals: Mapping[tuple[float, float], Mapping[str, float] | str],
    experiment: str = "grid",
    other: str = "depth",
) -> list[Sweep]:
    """Sweeps of one role's runs, by the other option and lr: what each logged, or its failure."""
    planned = {}
    for (value, lr), final in finals.items():
        name = f"plain-{other}{value:g}-lr{lr:g}"
        planned[name] = PlannedRun(
            "c.py", experiment=experiment, role="plain", options={other: value, "lr": lr}
        )
        failure = final if isinstance(final, str) else ""
        lines = [{"lr": lr, "loss": 2.5, "step": 10}]
        if not isinstance(final, str) and final:
            lines.append({**final, "step": 10})
        write_run(folder / name, lines, 0, failure=failure)
    write_suite(folder, planned)
    return find_sweeps(load_runs(folder))


def test_every_setting_has_the_mean_of_its_seeds(sweep: Sweep) -> None:
    assert (sweep.experiment, sweep.metric, sweep.option) == (EXPERIMENT, "val/loss", "warmup")
    assert list(sweep.roles) == list(ROLES)
    assert sweep.values == list(WARMUPS)
    for role, settings in sweep.roles.items():
        assert [(s.value, s.lr) for s in settings] == [(w, lr) for w in WARMUPS for lr in RATES]
        for s in settings:
            expected = [final_loss(role, s.value, s.lr, seed) for seed in SEEDS]
            if (role, s.value, s.lr) == DIVERGED[:3]:
                continue
            assert s.finals == pytest.approx(expected)
            assert s.mean == pytest.approx(np.mean(expected))


def test_a_setting_with_a_diverged_run_has_no_mean(sweep: Sweep) -> None:
    role, value, lr, _ = DIVERGED
    (setting,) = (s for s in sweep.roles[role] if (s.value, s.lr) == (value, lr))
    assert setting.lost == 1
    assert math.isnan(setting.mean)
    # its validation before it diverged is no result, the others' are
    assert setting.finals == (BEYOND, BEYOND)


def test_the_best_at_the_smallest_value_and_above_it(sweep: Sweep) -> None:
    without, above = sweep.best_pair("adamw")
    assert without is not None
    assert above is not None
    assert (without.value, without.lr) == (0.0, 0.002)
    assert (above.value, above.lr) == (0.02, 0.002)
    assert without.mean - above.mean == pytest.approx(0.3)
    lost = [s for s in sweep.roles["adamw"] if s.lost]
    assert sweep.best(lost) is None


def test_a_ruinous_learning_rate_does_not_flatten_the_axis(sweep: Sweep) -> None:
    low, high = sweep.limits
    means = [s.mean for settings in sweep.roles.values() for s in settings if s.lr < RATES[-1]]
    assert low < min(means)
    assert max(means) < high < BEYOND
    assert (max(means) - min(means)) / (high - low) > 0.4
    assert (max(means) - min(means)) / (BEYOND - low) < 0.1  # control: to the worst run


def test_what_is_not_in_range_stands_at_the_edge_side_by_side(sweep: Sweep) -> None:
    places = sweep.edge_places("adamw")
    assert list(places) == [(value, RATES[-1]) for value in WARMUPS]
    left, middle, right = places.values()
    assert middle == pytest.approx(RATES[-1])
    assert middle / left == pytest.approx(right / middle)
    assert 1 < right / left < RATES[-1] / RATES[-2]  # none stands at another learning rate


def test_accuracy_is_better_higher(tmp_path: Path) -> None:
    grid = {
        (value, lr): {"accuracy/top1": 60 + value + 10 * (lr == 0.2), "val/loss": value}
        for value in (1.0, 2.0)
        for lr in (0.1, 0.2)
    }
    grid[2.0, 0.4] = {"accuracy/top1": 1.0, "val/loss": 9.0}
    grid[1.0, 0.4] = {"accuracy/top1": 1.0, "val/loss": 9.0}
    (sweep,) = _grid(tmp_path, grid)
    assert (sweep.metric, sweep.lowest_is_best) == ("accuracy/top1", False)
    without, above = sweep.best_pair("plain")
    assert without is not None
    assert above is not None
    assert (without.lr, above.lr, above.mean) == (0.2, 0.2, 72.0)
    assert sweep.limits[0] < 60 < 72 < sweep.limits[1]
    assert set(sweep.edge_places("plain")) == {(1.0, 0.4), (2.0, 0.4)}


def test_a_run_without_a_number_is_lost_and_other_failures_are_left_out(tmp_path: Path) -> None:
    mean = {"coco/bbox_mAP": 0.3}
    grid = {(1.0, 0.1): mean, (1.0, 0.2): {}, (2.0, 0.1): mean, (2.0, 0.2): "OSError: disk full"}
    grid[3.0, 0.1] = {"coco/bbox_mAP": math.nan}
    (sweep,) = _grid(tmp_path, grid)
    assert {(s.value, s.lr): s.lost for s in sweep.roles["plain"]} == {
        (1.0, 0.1): 0,
        (1.0, 0.2): 1,
        (2.0, 0.1): 0,
        (3.0, 0.1): 1,
    }
    assert sweep.left_out == 1


def test_what_is_no_grid_is_no_sweep(tmp_path: Path) -> None:
    loss = {"val/loss": 1.0}
    two = {(1.0, 0.1): loss, (2.0, 0.1): loss}
    assert len(_grid(tmp_path / "control", two)) == 1
    assert _grid(tmp_path / "one-value", {(1.0, 0.1): loss, (1.0, 0.2): loss}) == []
    assert _grid(tmp_path / "no-rate", {(1.0, 0.0): loss, (2.0, -1.0): loss}) == []
    assert _grid(tmp_path / "no-number", {(math.nan, 0.1): loss, (math.inf, 0.1): loss}) == []
    assert _grid(tmp_path / "no-metric", {(1.0, 0.1): {"grace": 1}, (2.0, 0.1): {}}) == []
    assert _grid(tmp_path / "no-experiment", two, experiment="") == []
    assert _grid(tmp_path / "no-end", dict.fromkeys(two, "OSError: disk full")) == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.1},
        {"depth": "large", "lr": 0.1},
        {"depth": 1.0, "lr": 0.1, "width": 1.0},
        {"depth": 10**400, "lr": 0.1},
        {"depth": 1.0, "lr": 10**400},
    ],
)
def test_options_that_are_not_lr_and_one_number(
    tmp_path: Path, options: dict[str, float | str]
) -> None:
    loss = {"val/loss": 1.0}
    grid = {(1.0, 0.1): loss, (2.0, 0.1): loss}
    _grid(tmp_path, grid)
    write_run(tmp_path / "another", [{"val/loss": 0.5, "step": 10}], 0)
    plan = PlannedRun("c.py", experiment="grid", role="plain", options=options)
    write_suite(tmp_path, {"another": plan})
    (sweep,) = find_sweeps(load_runs(tmp_path))
    settings = [(s.value, s.lr, s.finals) for s in sweep.roles["plain"]]
    assert settings == [(1.0, 0.1, (1.0,)), (2.0, 0.1, (1.0,))]
