from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.launch.finite_loss_hook import NOT_FINITE
from benchmarks.sweep.plan import expand
from benchmarks.sweep.sources import full_size
from benchmarks.sweep.suite import Tuning
from benchmarks.sweep.tuning import Choice, choose, tuned_table
from smd_hooks.analysis import Run
from smd_hooks.analysis.reading.scalars import Scalars, Series
from smd_hooks.records import PlannedRun, RunState
from tests.benchmarks.sweep.small import experiment, suite_of

LR = "optim_wrapper.optimizer.lr"
TUNE = {"option": "lr", "key": LR, "factors": [0.5, 1, 2], "seed": 9, "metric": "accuracy/top1"}


def ended(score: float | str | None, planned: PlannedRun | None = None) -> Run:
    """A run that ended with a top-1, with an error, or without validating."""
    state = RunState("failed", error=score) if isinstance(score, str) else RunState("finished")
    series = {"accuracy/top1": Series([(5, 99.0), (10, score)])} if _is_number(score) else {}
    return Run("run", Path("run"), scalars=Scalars(series), state=state, planned=planned)


def _is_number(score: object) -> bool:
    return isinstance(score, float)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((90.0, 91.0, 89.0), 0.1),  # the last value counts, not the 99 before it
        ((92.0, 91.0, 89.0), 0.05),
        ((90.0, f"{NOT_FINITE} since iteration 3", 91.0), 0.2),
        ((90.0, None, None), 0.05),
        ((None, None, None), None),
        ((f"{NOT_FINITE} since iteration 3",) * 3, None),
        ((90.0, 91.0, "a broken image"), None),
        ((math.nan, 91.0, 90.0), 0.1),
        ((90.0, math.nan, math.inf), 0.05),
        ((math.nan,) * 3, None),
    ],
)
def test_the_best_is_chosen(
    tmp_path: Path, scores: tuple[float | str | None, ...], best: float | None
) -> None:
    one = suite_of(tmp_path, experiment(tmp_path, tune=TUNE)).experiments[0]
    assert one.tuning is not None
    trials = expand(one, full_size(one, ()), one.seeds)[:3]
    there = {t.name: ended(score) for t, score in zip(trials, scores, strict=True)}
    found = choose(one.tuning, trials, there)
    assert (found.value if found else None) == best
    del there[trials[2].name]
    assert choose(one.tuning, trials, there) is None


def test_of_a_loss_the_lowest_is_best(tmp_path: Path) -> None:
    tuning = Tuning("lr", LR, (0.5, 1), 9, "val/loss")
    one = suite_of(tmp_path, experiment(tmp_path, tune=TUNE)).experiments[0]
    trials = expand(one, full_size(one, ()), one.seeds)[:2]
    there = {}
    for trial, loss in zip(trials, (2.0, 1.0), strict=True):
        there[trial.name] = ended(None)
        there[trial.name].scalars = Scalars({"val/loss": Series([(10, loss)])})
    found = choose(tuning, trials, there)
    assert found is not None
    assert found.value == 0.1


@pytest.mark.parametrize(("value", "edge"), [(0.1, False), (0.05, True), (0.2, True)])
def test_a_best_at_the_edge_is_told(value: float, edge: bool) -> None:
    choice = Choice(value, {0.1: 91.0, 0.05: 90.0, 0.2: "diverged"})
    words = choice.in_words()
    assert words.startswith("0.05: 90, 0.1: 91, 0.2: diverged")
    assert words.endswith("(best at the edge)") is edge


def run_at(role: str, lr: float, score: float | str) -> Run:
    options: Mapping[str, float | str] = {"lr": lr}
    return ended(score, PlannedRun("", experiment="first", role=role, options=options))


def test_the_table_has_mean_and_std_of_the_runs_at_the_chosen_value(tmp_path: Path) -> None:
    one = suite_of(tmp_path, experiment(tmp_path, tune=TUNE)).experiments[0]
    choices = {"plain": Choice(0.1, {0.05: 90.0, 0.1: 92.0, 0.2: 91.0})}
    runs = [
        run_at("plain", 0.1, 91.0),
        run_at("plain", 0.1, 93.0),
        run_at("plain", 0.1, "a broken image"),
        run_at("plain", 0.2, 50.0),  # of an earlier tuning
        run_at("tune-plain", 0.1, 10.0),
        run_at("other", 0.1, 20.0),  # not tuned: its value is nobody's choice
    ]
    table = tuned_table(one, choices, runs).set_index("role")
    assert list(table.index) == ["plain", "other"]
    plain = table.loc["plain"]
    assert (plain["lr"], plain["seeds"], plain["failed"]) == (0.1, 2, 1)
    assert plain["accuracy/top1_mean"] == 92.0
    assert plain["accuracy/top1_std"] == pytest.approx(math.sqrt(2))
    assert plain["budget"] == "3 values of lr × 1 run each, the same for every one"
    other = table.loc["other"]
    assert (other["seeds"], other["failed"], other["tried"]) == (0, 0, "")
    assert "coco/bbox_mAP_mean" not in table
