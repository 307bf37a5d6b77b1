from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis import Run, agreement_table, load_runs
from smd_hooks.analysis.report.embedding import embed
from smd_hooks.analysis.report.run_data import (
    ADD_HOOK,
    LEAST_POINTS,
    MOST_POINTS,
    describe_run,
    median_ratio,
    show,
    summarize_stages,
)
from tests.analysis.report.report_runs import HOSTILE_LAYERS, HOSTILE_NAME, JUMP, write_all_kinds


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    write_all_kinds(folder)
    return {run.name: run for run in load_runs(folder)}


def _describe(run: Run, budget: int = 10**6) -> dict[str, Any]:
    data = describe_run(run, agreement_table([run]).iloc[0].to_dict(), budget)
    return json.loads(embed(data))


def test_curves_of_every_layer_on_one_grid(runs: dict[str, Run]) -> None:
    data = _describe(runs["dropped"])
    assert data["message"] == ""
    assert data["layers"] == [f"layer{i}.conv" for i in range(8)]
    assert data["steps"][0] == 0
    assert data["steps"][-1] == 799
    for quantity in ("angle", "law", "ratio", "norm_ratio"):
        assert [len(row) for row in data[quantity]] == 8 * [len(data["steps"])]
    after = data["steps"].index(JUMP)
    assert data["ratio"][0][after - 1] == pytest.approx(1, abs=0.01)
    assert data["ratio"][0][after] == pytest.approx(10**-0.5, rel=0.03)
    assert [mark["lr"] for mark in data["marks"]] == [0.1, 0.01]
    assert data["a_priori"]["ratio"][-1] == pytest.approx(data["ratio"][0][-1], rel=0.01)
    assert len(data["targets"]["courses"]) == 1
    assert data["targets"]["which"] == 8 * [0]


def test_layers_share_the_budget_of_points(runs: dict[str, Run]) -> None:
    lengths = {b: len(_describe(runs["dropped"], b)["steps"]) for b in (1, 8 * 100, 10**6)}
    assert lengths[1] == pytest.approx(LEAST_POINTS, abs=2)
    assert lengths[8 * 100] == pytest.approx(100, abs=2)
    assert lengths[10**6] == pytest.approx(MOST_POINTS, abs=2)


def test_metrics_and_loss_stand_beside(runs: dict[str, Run]) -> None:
    history = {entry["metric"]: entry for entry in _describe(runs["foreign"])["history"]}
    assert list(history) == ["loss", "accuracy/top1", "accuracy/top5"]
    assert history["accuracy/top1"]["values"] == [97.5]
    assert history["loss"]["values"][:2] == [2.0, pytest.approx(2 / 51, rel=1e-3)]


def test_every_matrix_has_its_diagnosis_with_its_number(runs: dict[str, Run]) -> None:
    rows = {row[0]: row[1:] for row in _describe(runs["dropped"])["diagnosis"]}
    assert len(rows) == 9
    ratio, error, norm, cause, value, words = rows["layer3.conv"]
    score = runs["dropped"].scores.set_index("parameter").loc["layer3.conv.weight"]
    assert (ratio, norm) == (
        pytest.approx(score["angle_ratio"], rel=1e-3),
        pytest.approx(score["norm_ratio"], rel=1e-3),
    )
    assert error < 0.01
    assert cause == "not relaxed yet"
    assert value == pytest.approx(1, abs=0.1)
    assert "relaxation times" in words
    assert rows["fc"][0] is None
    assert rows["fc"][3] == "not scale-invariant"


def test_a_run_without_curves_says_why(runs: dict[str, Run]) -> None:
    messages = {name: _describe(run)["message"] for name, run in runs.items()}
    assert {name for name, message in messages.items() if not message} == {
        "dropped",
        "turned",
        HOSTILE_NAME,
    }
    assert messages["foreign"] == ADD_HOOK
    assert messages["nothing"].startswith("Nothing is scale-invariant: ")
    assert messages["short"].startswith("Too short")
    assert messages["failed"].startswith("Failed: ValueError: ")


def test_names_are_text(runs: dict[str, Run]) -> None:
    data = _describe(runs[HOSTILE_NAME])
    assert data["name"] == HOSTILE_NAME
    assert data["layers"][:2] == [name.removesuffix(".weight") for name in HOSTILE_LAYERS[:2]]
    assert r"\u2028" in data["layers"][2]
    assert r"\udcff" in data["layers"][2]


def test_medians_are_over_layers(runs: dict[str, Run]) -> None:
    median = median_ratio(
        {"message": "", "steps": [1, 2, 3], "ratio": [[1.0, None, None], [3.0, 2.0, None]]}
    )
    assert median == {"steps": [1, 2, 3], "median": [2.0, 2.0, None]}
    assert median_ratio(_describe(runs["foreign"])) is None


def test_stages_are_summed_up_over_layers() -> None:
    layers = pd.DataFrame(
        {
            "parameter": ["a", "b", "c", "a", "b", "c"],
            "stage": [0, 0, 0, 1, 1, 1],
            "first_step": [0, 0, 50, 100, 100, 100],
            "last_step": [99, 99, 98, 299, 299, 299],
            "lr": 3 * [0.1] + 3 * [0.01],
            "weight_decay": 0.005,
            "equilibrium_angle": 3 * [0.02] + 3 * [0.01],
            "relaxation_steps": 3 * [50.0] + 3 * [500.0],
            "length": 3 * [2.0] + 3 * [0.4],
            "ratio_start": [2.0, 3.0, 1.0, 0.32, 0.30, 0.31],
            "ratio_end": [1.0, 1.1, 0.98, 0.4, 0.5, 0.3],
            "in_equilibrium": [True, False, True, False, False, False],
            "steps_to_equilibrium": [60.0, np.nan, 40.0, np.nan, np.nan, np.nan],
            "predicted_steps": [50.0, 60.0, 40.0, np.inf, np.inf, np.inf],
            "time_ratio": [1.2, np.nan, 1.0, np.nan, np.nan, np.nan],
        }
    )
    first, second = summarize_stages(layers)
    assert (first["stage"], first["first_step"], first["last_step"]) == (1, 0, 99)
    assert (first["ratio_start"], first["ratio_end"]) == (2.0, 1.0)
    assert first["in_equilibrium"] == 0.6667
    assert (first["reached"], first["layers"], first["steps_to_equilibrium"]) == (2, 3, 50.0)
    assert (first["predicted_steps"], first["time_ratio"]) == (45.0, 1.1)  # of those that arrived
    assert (second["reached"], second["predicted_steps"], second["time_ratio"]) == (0, None, None)


def test_stages_of_a_real_run(runs: dict[str, Run]) -> None:
    first, second = _describe(runs["dropped"])["stages"]
    assert (first["first_step"], second["first_step"]) == (0, JUMP)
    assert second["relaxation_steps"] == pytest.approx(500, rel=0.01)
    assert second["ratio_end"] == pytest.approx((1 + 9 * np.exp(-1)) ** -0.5, abs=0.02)
    assert (first["in_equilibrium"], second["in_equilibrium"]) == (1, 0)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (np.nan, ""),
        (90000.0, "90000"),
        (1e-4, "0.0001"),
        (0.12345, "0.1235"),
        ("a", "a"),
    ],
)
def test_numbers_are_shown_short(value: Any, shown: str) -> None:
    assert show(value) == shown
