from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.__main__ import main
from benchmarks.sweep.gaps import COLUMNS, SHOWN, compares_warmups, gap_table
from benchmarks.sweep.suite import Axis
from smd_hooks.analysis.claims.claim import Experiment
from tests.analysis.claims.constructed import bare_run
from tests.analysis.claims.grids import BEST, LEVEL, RATES, WARMUPS, end, grid, in_grid
from tests.benchmarks.sweep.small import FakeTrainings, experiment, write_suite_file

EDGE = "not decided: a best lr is at the edge of the grid"
LR = "optim_wrapper.optimizer.lr"


def row(found: Experiment, role: str = "adamw") -> pd.Series:
    table = gap_table(found, [role])
    assert list(table) == list(COLUMNS)
    assert {*SHOWN} < {*COLUMNS}
    return table.iloc[0]


def test_a_row_has_both_ways_and_the_gap_with_its_interval() -> None:
    found = row(in_grid(grid(0.1)))
    assert found["metric"] == "val/loss"
    assert (found["seeds"], found["runs"], found["missing"], found["diverged"]) == (3, 27, 0, 0)
    level = sum(LEVEL) / 3
    assert found["without_mean"] == pytest.approx(3.4 + level)
    assert found["with_mean"] == pytest.approx(3.3 + level)
    assert found["with_std"] == pytest.approx(pd.Series(LEVEL).std())
    assert (found["without_of"], found["with_of"]) == (3, 6)
    assert (found["with_warmup"], found["without_lr"], found["with_lr"]) == (0.5, BEST, BEST)
    assert [found[f"gap{part}"] for part in ("", "_smallest", "_largest")] == pytest.approx(
        [0.1, 0.098, 0.102]
    )
    half = 4.302653 * 0.002 / math.sqrt(3)
    assert (found["gap_low"], found["gap_high"]) == pytest.approx((0.1 - half, 0.1 + half))
    assert found["reading"] == "a benefit"
    assert found["at_the_edge"] == ""
    assert row(in_grid(grid(0.1, best=RATES[2])))["at_the_edge"] == "without, with"


def test_a_gap_within_the_noise_is_read_so() -> None:
    found = row(in_grid(grid(0.1, spread=(-0.1, 0.0, 0.1))))
    assert found["gap"] == pytest.approx(0.1)
    assert found["gap_low"] < 0 < found["gap_high"]
    assert found["reading"] == "not decided by 3 seeds"


def test_accuracies_are_shown_as_they_are() -> None:
    runs = grid(2.0, 90.0, sign=-1, metric="accuracy/top1")
    for run in runs:  # a loss is logged as well
        run.scalars.series["val/loss"] = end(1.0, 0, 1.0, 0).scalars.series["val/loss"]
    found = row(in_grid(runs))
    assert found["metric"] == "accuracy/top1"
    assert found["gap"] == pytest.approx(2.0)
    assert found["without_mean"] == pytest.approx(88.0 + sum(LEVEL) / 3)


def test_one_seed_has_no_interval() -> None:
    found = row(in_grid(grid(0.1, spread=(0.0,))))
    assert found["gap"] == pytest.approx(0.1)
    assert pd.isna(found["gap_low"])
    assert pd.isna(found["gap_high"])
    assert pd.isna(found["with_std"])
    assert found["reading"] == "not decided by 1 seed"


def test_diverged_runs_are_counted() -> None:
    found = row(in_grid(grid(0.1), *((0.0, lr, seed) for lr in RATES for seed in range(3))))
    assert (found["diverged"], found["without_diverged"], found["with_diverged"]) == (9, 3, 0)
    assert (found["gap"], found["gap_low"]) == (math.inf, math.inf)
    assert pd.isna(found["without_mean"])
    assert found["reading"] == EDGE  # a smaller learning rate might not diverge
    some = row(in_grid(grid(0.1), *((0.0, lr, 0) for lr in RATES)))
    assert (some["without_diverged"], some["gap"], some["gap_high"]) == (1, math.inf, math.inf)
    assert some["gap_low"] == pytest.approx(0.1 + 0.004 / 3 - 4.302653 * 0.002 / 3)
    assert some["without_mean"] == pytest.approx(3.4 + (0.002 + LEVEL[1] + LEVEL[2]) / 2)
    assert some["reading"] == "a benefit"


def test_missing_runs_are_counted_and_what_is_lacking_is_said() -> None:
    runs = grid(0.1)
    lost, kept = runs[-1], runs[:-1]
    one = in_grid(kept)
    found = row(replace(one, unfinished={"adamw": [lost]}))
    assert (found["seeds"], found["runs"], found["missing"]) == (2, 27, 1)
    without = [run for run in runs if run.name.startswith(f"warmup{WARMUPS[0]}")]
    assert row(in_grid(without))["reading"] == "not run with a warmup and without"
    nobody = row(one, "lionar")
    assert nobody["reading"] == "lionar: no seed ran at every setting"
    assert nobody["runs"] == 0
    assert pd.isna(nobody["gap"])
    lacking = row(in_grid([bare_run("a-seed0", warmup=0, lr=1.0)]))
    assert lacking["reading"] == "adamw: a run logged no val/loss"


def test_grids_of_other_things_compare_no_warmups() -> None:
    lr, warmup = Axis("lr", LR, (1.0,)), Axis("warmup", "share", (0.0, 0.1))
    assert compares_warmups([lr, warmup])
    assert not compares_warmups([lr])
    assert not compares_warmups([])


def test_a_sweep_writes_the_table_and_shows_it(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = {
        "warmup": {"key": "share", "values": [0, 0.1]},
        "lr": {"key": LR, "values": [0.1, 0.2]},
    }
    fake.ends = {"other-warmup0-lr0.1": "diverged", "plain-warmup0.1-lr0.2-seed1": "broken"}
    compared = experiment(tmp_path, "compared", grid=axes)
    only_rates = experiment(tmp_path, "rates", grid={"lr": axes["lr"]})
    suite = write_suite_file(tmp_path, compared, only_rates)
    assert main(["sweep", str(suite), "--results", "results", "--retries", "0"]) == 1
    table = pd.read_csv("results/gaps.csv").set_index("role")
    assert list(table.index) == ["plain", "other"]
    plain, other = table.loc["plain"], table.loc["other"]
    assert (plain["seeds"], plain["missing"], plain["gap"]) == (1, 1, 0.0)
    assert (plain["without_lr"], plain["without_of"]) == (0.1, 2)
    assert (other["diverged"], other["without_lr"], other["with_lr"]) == (2, 0.2, 0.1)
    assert other["gap"] == pytest.approx(math.log(2))
    assert other["reading"] == EDGE
    assert "not decided" in capsys.readouterr().out
    readme = Path("results/README.md").read_text()
    assert "## What a warmup gains" in readme
    assert Path("results/gaps.md").read_text() in readme


def test_without_such_a_grid_there_is_no_such_table(tmp_path: Path, fake: FakeTrainings) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path, "first"))
    assert main(["sweep", str(suite), "--results", "results"]) == 0
    assert not Path("results/gaps.md").exists()
    assert "What a warmup gains" not in Path("results/README.md").read_text()
