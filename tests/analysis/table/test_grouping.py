from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis import agreement_table, by_columns, compare, load_runs, over_seeds
from smd_hooks.analysis.reading.run import Run
from smd_hooks.analysis.table.grouping import AVERAGED, group_rows, most_frequent
from smd_hooks.analysis.table.table import COLUMNS
from smd_hooks.records import PlannedRun, RunState, write_state, write_suite
from tests.analysis.work_dirs import CONFIG, launch

ADAM = CONFIG.replace("type='SGD', lr=0.1, momentum=0.9", "type='AdamW', lr=0.01")


def trained(folder: Path, config: str, seed: int, top1: float | None, status: str) -> None:
    text = (
        config.replace("seed=7", f"seed={seed}") + f"work_dir = '{folder}'\nresume = {seed > 0}\n"
    )
    lines = [] if top1 is None else [{"accuracy/top1": top1, "step": 100}]
    state = RunState("failed" if status == "failed" else "finished", 100, 100, "NaN")
    write_state(launch(folder, "20260101_000000", lines, config=text), state)


@pytest.fixture
def suite(tmp_path: Path) -> tuple[pd.DataFrame, list[Run]]:
    """SGD on three seeds, of which one failed; AdamW on two, one of which is missing."""
    for seed, top1 in ((0, 90.0), (1, 92.0)):
        trained(tmp_path / f"sgd-seed{seed}", CONFIG, seed, top1, "finished")
    trained(tmp_path / "sgd-seed2", CONFIG, 2, 10.0, "failed")
    trained(tmp_path / "adamw-seed0", ADAM, 0, 80.0, "finished")
    write_suite(tmp_path, {"adamw-seed0": PlannedRun("a.py"), "adamw-seed1": PlannedRun("a.py")})
    runs = load_runs(tmp_path)
    return agreement_table(runs), runs


def test_seeds_of_one_setting_become_one_row(suite: tuple) -> None:
    grouped = over_seeds(*suite).set_index("run")
    assert list(grouped.index) == ["adamw", "sgd"]
    sgd, adamw = grouped.loc["sgd"], grouped.loc["adamw"]
    assert (sgd["runs"], sgd["status"], sgd["seed"]) == (2, "2 finished, 1 failed", "0 1 2")
    assert sgd["accuracy/top1_mean"] == 91.0
    assert sgd["accuracy/top1_std"] == pytest.approx(2**0.5)
    assert (sgd["lr"], sgd["optimizer"]) == (0.1, "SGD(momentum=0.9)")
    assert sgd["verdict"] == "not measured"  # of those that ended
    assert (adamw["runs"], adamw["status"]) == (1, "1 finished, 1 missing")
    assert adamw["accuracy/top1_mean"] == 80.0
    assert np.isnan(adamw["accuracy/top1_std"])


def test_what_differs_in_more_than_the_seed_stays_apart(tmp_path: Path) -> None:
    """Though every column of the table is the same."""
    trained(tmp_path / "plain-seed0", CONFIG, 0, 90.0, "finished")
    decay = CONFIG + "custom = dict(norm_decay_mult=0.0)\n"
    trained(tmp_path / "other-seed1", decay, 1, 92.0, "finished")
    runs = load_runs(tmp_path)
    assert over_seeds(agreement_table(runs), runs)["runs"].tolist() == [1, 1]


def test_large_seeds_keep_their_digits_and_missing_runs_take_no_iterations(tmp_path: Path) -> None:
    for seed, folder in ((1234567890, "a/seed0"), (4294967295, "a/seed1")):
        trained(tmp_path / folder, CONFIG, seed, 90.0, "finished")
    write_suite(tmp_path, {f"a/seed{n}": PlannedRun("a.py") for n in range(3)})
    runs = load_runs(tmp_path)
    (row,) = over_seeds(agreement_table(runs), runs).to_dict("records")
    assert (row["run"], row["seed"]) == ("a", "1234567890 4294967295")
    assert (row["status"], row["iters"]) == ("2 finished, 1 missing", 100)


def test_verdicts_that_differ_in_a_number_are_one_verdict() -> None:
    told = pd.Series(["in equilibrium", "above equilibrium by 9%", "above equilibrium by 10%"])
    assert most_frequent(told) == "above equilibrium by 9% (2 of 3)"
    assert most_frequent(told[:2]) == "in equilibrium; above equilibrium by 9%"
    assert most_frequent(told[:1]) == "in equilibrium"


def test_groups_by_columns(suite: tuple) -> None:
    table, _ = suite
    grouped = by_columns(table, ["task", "status"])
    assert dict(zip(grouped["status"], grouped["runs"], strict=True)) == {
        "3 finished": 3,
        "1 failed": 0,
        "1 missing": 0,
    }
    by_optimizer = by_columns(table, ["optimizer"]).set_index("optimizer")
    assert by_optimizer.loc["SGD(momentum=0.9)", "accuracy/top1_mean"] == 91.0
    with pytest.raises(ValueError, match="cannot be grouped by 'run'"):
        by_columns(table, ["run"])


def test_every_column_is_kept_or_averaged() -> None:
    empty = pd.DataFrame(columns=list(COLUMNS))
    stems = {c.removesuffix("_mean").removesuffix("_std") for c in group_rows(empty, []).columns}
    assert stems == {*COLUMNS, "runs"}
    assert set(AVERAGED) < set(COLUMNS)


def test_differences_are_b_minus_a_with_the_pooled_standard_error(tmp_path: Path) -> None:
    a, b = [90.0, 92.0, 91.0], [80.0, 84.0]
    for seed, value in enumerate(a):
        trained(tmp_path / f"a-seed{seed}", CONFIG, seed, value, "finished")
    for seed, value in enumerate(b):
        trained(tmp_path / f"b-seed{seed}", ADAM, seed, value, "finished")
    runs = load_runs(tmp_path)
    table = agreement_table(runs)
    for first, second in (("a", "b"), ("a-*", "b-seed?")):
        (found,) = compare(table, runs, first, second).to_dict("records")
        assert found["metric"] == "accuracy/top1"
        assert found["difference"] == pytest.approx(82.0 - 91.0)
        # by another road: the t-test's standard error, from the sums of squares
        squares = sum((x - 91) ** 2 for x in a) + sum((x - 82) ** 2 for x in b)
        assert found["standard_error"] == pytest.approx((squares / 3 * (1 / 3 + 1 / 2)) ** 0.5)
        assert (found[f"{first}_runs"], found[f"{second}_runs"]) == (3, 2)
    (single,) = compare(table, runs, "a-seed0", "b-seed0").to_dict("records")
    assert single["difference"] == -10.0
    assert np.isnan(single["standard_error"])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("sgd", "nothing", "'nothing' matches no run; there are adamw-seed0, adamw-seed1, sgd"),
        ("sgd", "sgd", "compared with itself"),
        ("sgd-seed2", "adamw", r"no run of 'sgd-seed2' has ended \(failed\)"),
        ("adamw-seed1", "sgd", r"no run of 'adamw-seed1' has ended \(missing\)"),
        ("sgd", "sgd-seed1", "'sgd' and 'sgd-seed1' have runs in common"),
    ],
)
def test_what_cannot_be_compared_is_said(suite: tuple, a: str, b: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(*suite, a, b)


def test_a_name_of_two_groups_is_no_name(tmp_path: Path) -> None:
    trained(tmp_path / "x-seed0", CONFIG, 0, 90.0, "finished")
    trained(tmp_path / "x-seed1", ADAM, 1, 80.0, "finished")
    trained(tmp_path / "y", CONFIG + "more = 1\n", 1, 80.0, "finished")
    runs = load_runs(tmp_path)
    with pytest.raises(ValueError, match="'x' stands for 2 groups"):
        compare(agreement_table(runs), runs, "x", "y")
