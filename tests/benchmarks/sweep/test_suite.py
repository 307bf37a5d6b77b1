from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.errors import UsageError
from benchmarks.sweep.suite import Axis, Control, ReplicaPart, Tuning, load_suite
from smd_hooks.analysis.claims.ledger import CLAIMS
from tests.benchmarks.sweep.small import experiment, suite_of, write_suite_file

GRID = {"grid": {"lr": {"key": "a.lr", "values": [1, 2]}}}
TUNE = {"option": "lr", "key": "a.lr", "factors": [1, 3], "seed": 9, "metric": "accuracy/top1"}


def test_a_suite_is_read_as_it_stands(tmp_path: Path) -> None:
    replica = {
        "longest": 13,
        "seeds": [5],
        "options": {"": {"a.b": 1}},
        "controls": {"wrong": {"of": "plain", "options": {"c": 2}}},
        "fastest": 10,
        "grid": {"lr": [0.2]},
    }
    grid = {
        "lr": {"key": "a.lr", "values": [0.1, 0.2]},
        "decay": {"key": "a.decay", "factors": [1, 2]},
    }
    suite = suite_of(
        tmp_path,
        experiment(tmp_path, "first", replica=replica, grid=grid),
        experiment(tmp_path, "second", replica="too large", tune=TUNE),
        experiment(tmp_path, "third"),
    )
    first, second, third = suite.experiments
    assert (suite.name, suite.paper) == ("suite", "A paper")
    assert (first.name, first.figure, first.seeds) == ("first", "Fig. 1", (0, 1))
    assert list(first.configs) == ["plain", "other"]
    decay = Axis("decay", "a.decay", factors=(1, 2))
    assert first.grid == (Axis("lr", "a.lr", (0.1, 0.2)), decay)
    wrong, fewer = {"wrong": Control("plain", {"c": 2})}, (Axis("lr", "a.lr", (0.2,)), decay)
    assert first.replica == ReplicaPart((5,), 13.0, 10.0, 20, {"": {"a.b": 1}}, {}, wrong, fewer)
    assert second.replica == "too large"
    assert second.tuning == Tuning("lr", "a.lr", (1, 3), 9, "accuracy/top1")
    assert third.replica == ReplicaPart((0, 1), 10.0, math.inf, 20, {}, {}, {}, ())
    assert third.tuning is None


def _replica(**content: Any) -> dict[str, Any]:
    return {"replica": content}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sedes": [0]}, "unknown key 'sedes'; there are id, runs, seeds"),
        ({"runs": {}}, "runs is empty"),
        ({"runs": {"plain": "configs/no.py"}}, "config configs/no.py of role 'plain' does not"),
        ({"runs": {"a/b": "configs/no.py"}}, "'a/b' can be no folder's name"),
        ({"runs": ["configs/no.py"]}, "not a dict"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [0, 0]}, "seeds names something twice: [0, 0]"),
        ({"seeds": ["0"]}, "'0' cannot stand in seeds"),
        ({"seeds": [True]}, "True cannot stand in seeds"),
        ({"id": "../up"}, "'../up' can be no folder's name"),
        ({"claims": ["that-all-is-well"]}, "no claim 'that-all-is-well' is about it"),
        ({"claims": [CLAIMS[0].name]}, f"no claim '{CLAIMS[0].name}' is about it"),
        ({"grid": {"lr": {"key": "a"}}}, "grid, lr: give values, or factors"),
        ({"grid": {"lr": {"key": "a", "factors": [1], "values": [1]}}}, "give values, or factors"),
        ({**GRID, **_replica(grid={"lr": [3]})}, "replica, grid: lr has no 3 at full size"),
        ({**GRID, **_replica(grid={"decay": [1]})}, "replica, grid: unknown key 'decay'"),
        ({"tune": {**TUNE, "metric": "beauty"}}, "no metric 'beauty'"),
        ({"tune": {**TUNE, "seed": 1}}, "the seed of tune is one of the experiment's"),
        ({"tune": {**TUNE, "factors": []}}, "factors is empty"),
        (
            {"tune": TUNE, "grid": {"lr": {"key": "a", "values": [1]}}},
            "has a grid and tune",
        ),
        (_replica(options={"plian": {}}), "options: no role 'plian'; there are other, plain"),
        (_replica(controls={"x": {"of": "y", "options": {}}}), "controls: no role 'y'"),
        (_replica(controls={"plain": {"of": "other", "options": {}}}), "rename it"),
        (_replica(controls={"x": {"of": "plain"}}), "control x: 'options' is missing"),
        (_replica(longest="long"), "longest is 'long', not a int or float"),
        ({"replica": 3}, "replica is 3, not a dict or str"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = write_suite_file(tmp_path, experiment(tmp_path, **changes))
    with pytest.raises(UsageError) as caught:
        load_suite(path)
    line = str(caught.value)
    assert words in line
    assert line.startswith(f"suite {path}")
    assert "\n" not in line


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    content = experiment(tmp_path)
    del content["figure"]
    with pytest.raises(UsageError, match="first: 'figure' is missing"):
        suite_of(tmp_path, content)


def test_two_experiments_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 experiments are called 'first'"):
        suite_of(tmp_path, experiment(tmp_path), experiment(tmp_path))


def test_top_level_keys(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown key 'experimenst'"):
        load_suite(write_suite_file(tmp_path, experiment(tmp_path), experimenst=[]))
    private = write_suite_file(tmp_path, experiment(tmp_path), _shared={"a": 1})
    assert len(load_suite(private).experiments) == 1


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "does not exist; the suites are in suites/"),
        (lambda path: path.write_text("paper = (\n"), "does not load"),
        (lambda path: path.write_text("paper = 1 / 0\n"), "ZeroDivisionError"),
        (lambda path: path.write_text("paper = ''\n"), "'experiments' is missing"),
        (lambda path: path.write_text("paper = ''\nexperiments = [3]\n"), "3 is no dict"),
    ],
)
def test_files_that_are_no_suite_end_the_command(
    tmp_path: Path,
    write: Callable[[Path], object],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "suite.py"
    write(path)
    assert main(["sweep", str(path), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
