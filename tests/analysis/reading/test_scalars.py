from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from smd_hooks.analysis.reading.scalars import MOST_POINTS, Scalars, Series, read_scalars
from smd_hooks.records.foreign_files import Unreadable


def read(folder: Path, lines: list[Any]) -> Scalars:
    path = folder / "scalars.json"
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return read_scalars(path)


def train(step: int, **values: Any) -> dict[str, Any]:
    return {"lr": 0.1, "data_time": 0.1, "iter": step, "step": step, **values}


def test_history_of_a_run_by_epochs_counts_iterations(tmp_path: Path) -> None:
    val = {"time": 0.1, "data_time": 0.1}
    scalars = read(
        tmp_path,
        [
            train(50, loss=3.0, epoch=1),
            train(100, loss=2.0, epoch=1),
            {"accuracy/top1": 10.0, "step": 1, **val},
            train(150, loss=1.0, epoch=2),
            {"accuracy/top1": 20.0, "step": 2, **val},
        ],
    )
    assert scalars.history.to_dict("list") == {
        "iteration": [50, 100, 150, 100, 150],
        "metric": ["loss"] * 3 + ["accuracy/top1"] * 2,
        "value": [3.0, 2.0, 1.0, 10.0, 20.0],
    }
    assert (scalars.iteration, scalars.validated_at) == (150, 2)
    assert scalars.metrics == {"accuracy/top1": 20.0}


def test_history_of_a_run_by_iterations(tmp_path: Path) -> None:
    scalars = read(tmp_path, [train(50), {"mIoU": 41.5, "aAcc": 80.0, "step": 64}])
    assert scalars.history["iteration"].tolist() == [64, 64]
    assert scalars.history["metric"].tolist() == ["mIoU", "aAcc"]
    assert scalars.metrics == {}  # no column of the table


@pytest.mark.parametrize("name", ["loss", "val_loss", "val/loss"])
def test_a_validation_loss_is_no_training_loss(tmp_path: Path, name: str) -> None:
    scalars = read(tmp_path, [train(50, loss=3.0), {name: 1.5, "step": 50}])
    assert scalars.metrics == {"val/loss": 1.5}
    assert scalars.series["loss"].points == [(50, 3.0)]


@pytest.mark.parametrize("length", [1, 2, 499, 500, 501, 1000, 4321])
def test_thinning_keeps_both_ends_and_even_distances(length: int) -> None:
    points = Series([(i, float(i)) for i in range(length)]).points
    assert len(points) <= MOST_POINTS
    assert len(points) >= min(length, MOST_POINTS // 2)
    assert (points[0][0], points[-1][0]) == (0, length - 1)
    distances = {b[0] - a[0] for a, b in pairwise(points[:-1])}
    assert len(distances) <= 1


def test_what_a_resume_supersedes_is_gone_from_history_and_metrics() -> None:
    old = Scalars({"accuracy/top1": Series([(40, 1.0), (60, 2.0)])}, 60, 2)
    new = Scalars({"loss": Series([(50, 3.0)])}, 50)
    joined = old.continued_by(new, 45)
    assert joined.metrics == {"accuracy/top1": 1.0}
    assert (joined.iteration, joined.validated_at) == (50, 2)
    assert joined.history["value"].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", "5", '{"lr": 0.1}', '{"step": "7"}', '{"step": NaN}', '{"step": -1}',
     '{"step": true}', '{"step": 1.5}', '{"step": ' + "9" * 5000 + "}", "[" * 100_000,
     '{"step": 1e400}'],
)  # fmt: skip
def test_a_line_that_is_none_is_counted_and_costs_nothing(tmp_path: Path, line: str) -> None:
    scalars = read(tmp_path, [train(50, loss=1.0), line, train(100, loss=2.0)])
    assert (scalars.broken_lines, scalars.lines, scalars.iteration) == (1, 2, 100)


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    odd = {"a": "1", "b": [1], "c": None, "d": True, "e": 10**400}
    scalars = read(tmp_path, [{**odd, "accuracy/top1": float("nan"), "step": 5}])
    assert list(scalars.series) == ["accuracy/top1"]


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    scalars = read(tmp_path, [train(50), "x" * 5_000_000, train(100)])
    assert scalars.broken_lines == 5  # as many as it takes to get past it
    assert scalars.iteration == 100


def test_any_number_of_metrics_is_held_in_little(tmp_path: Path) -> None:
    lines = [{f"m{i}-{j}": 1.0 for j in range(100)} | {"step": i} for i in range(1, 20)]
    assert len(read(tmp_path, lines).series) == 200


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scalars.json").mkdir()
    with pytest.raises(Unreadable, match="a folder, not a file"):
        read_scalars(tmp_path / "scalars.json")
