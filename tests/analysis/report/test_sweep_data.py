from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from smd_hooks.analysis import load_runs
from smd_hooks.analysis.report.embedding import embed
from smd_hooks.analysis.report.sweep_data import describe_sweep
from smd_hooks.analysis.report.sweeps import find_sweeps
from tests.analysis.report.sweep_runs import BEYOND, DIVERGED, RATES, WARMUPS, write_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    write_sweep(folder)
    return folder


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    (sweep,) = find_sweeps(load_runs(folder))
    return embed(describe_sweep(sweep))


@pytest.fixture(scope="module")
def data(text: str) -> dict[str, Any]:
    return json.loads(text)


def test_a_line_per_value_of_the_option(data: dict[str, Any]) -> None:
    adamw, lionar = data["roles"]
    assert [line["value"] for line in adamw["lines"]] == list(WARMUPS) == data["values"]
    line = lionar["lines"][0]
    assert line["lr"] == list(RATES)
    assert line["mean"] == pytest.approx([2.1, 2.0, 2.1, BEYOND])
    assert line["low"][1] == pytest.approx(1.99)
    assert line["high"][1] == pytest.approx(2.01)
    assert line["ended"] == [3, 3, 3, 3]
    assert line["lost"] == [0, 0, 0, 0]
    place = RATES.index(DIVERGED[2])
    broken = adamw["lines"][WARMUPS.index(DIVERGED[1])]
    assert (broken["mean"][place], broken["lost"][place], broken["ended"][place]) == (None, 1, 2)


def test_the_best_is_said_in_words(data: dict[str, Any]) -> None:
    assert data["roles"][0]["words"] == [
        "warmup 0, lr 0.002: 2.000",
        "warmup 0.02, lr 0.002: 1.700",
    ]
    assert data["roles"][0]["best"] == [[0.0, 0.002], [0.02, 0.002]]


def test_first_updates_of_the_best_settings(data: dict[str, Any]) -> None:
    without, above = data["roles"][0]["starts"]
    assert (without["above"], above["above"]) == (False, True)
    assert without["run"] == "adamw-warmup0-lr0.002-seed0"
    assert above["run"] == "adamw-warmup0.02-lr0.002-seed0"
    assert without["message"] == "5 weight matrices"
    assert without["end"] == above["end"] == pytest.approx(40)
    angles = [start["courses"]["angular_update"]["median"] for start in (without, above)]
    assert angles[0] == pytest.approx(len(angles[0]) * [0.003])
    assert angles[1][0] == pytest.approx(0.003 / 8, rel=1e-3)  # the first of 8 warmup steps
    assert angles[1][2:] == angles[0][2:]
    limits = {name: limit for name, _, limit in data["measures"]}
    assert limits["angular_update"][0] < min(above["courses"]["angular_update"]["low"])
    assert limits["angular_update"][1] > max(above["courses"]["angular_update"]["high"])


def test_runs_without_records_say_so(data: dict[str, Any]) -> None:
    for start in data["roles"][1]["starts"]:
        assert start["message"] == "not measured"
        assert start["courses"] == {}


def test_it_stays_small(text: str) -> None:
    """Two roles of 72 runs; all their samples and losses would be a hundred times that."""
    assert len(text) < 20_000


def test_records_that_break_cost_one_start(folder: Path) -> None:
    runs = load_runs(folder)
    broken = next(run for run in runs if run.name == "adamw-warmup0-lr0.002-seed0")
    vars(broken)["size_measures"] = pd.DataFrame({"parameter": []})
    (sweep,) = find_sweeps(runs)
    with pytest.warns(UserWarning, match="seed0: no size measures"):
        data = describe_sweep(sweep)
    broken_start, whole = data["roles"][0]["starts"]
    assert broken_start["message"] == "not readable"
    assert whole["message"] == "5 weight matrices"
