from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smd_hooks import load_runs
from smd_hooks.analysis.reading.runs import Run
from smd_hooks.records import PlannedRun, RunState, write_state, write_suite
from smd_hooks.theory import AdamRule, SGDRule
from tests.analysis.work_dirs import CONFIG, RULE, launch, perfect_samples, weight

RUN = {"first_step": 0, "world_size": 1, "seed": 1, "weights": [weight("a")]}


def test_runs_are_found_at_any_depth_and_named_by_their_path(tmp_path: Path) -> None:
    for name in ("one", "suite/two"):
        launch(tmp_path / name, "20260101_000000", [{"lr": 0.1, "step": 5}])
    (tmp_path / "20260101_999999").mkdir()  # a timestamp, but nothing of MMEngine's in it
    assert [run.name for run in load_runs(tmp_path)] == ["one", "suite/two"]
    assert [run.name for run in load_runs(tmp_path / "one")] == ["one"]


def test_a_resume_supersedes_what_lies_after_its_start(tmp_path: Path) -> None:
    first, second = np.arange(0, 60), np.arange(40, 80)
    launch(
        tmp_path,
        "20260101_000000",
        [{"lr": 0.1, "step": 50}, {"accuracy/top1": 10.0, "step": 50}],
        perfect_samples(first, np.full(60, 0.1)),
        RUN,
    )
    launch(
        tmp_path,
        "20260101_000100",
        [{"lr": 0.1, "step": 80}, {"accuracy/top1": 20.0, "step": 80}],
        perfect_samples(second, np.full(40, 0.1), ratio=0.5),
        {**RUN, "first_step": 40},
    )
    (run,) = load_runs(tmp_path)
    assert run.samples["step"].tolist() == list(range(80))
    early = run.samples[run.samples["step"] == 39]["angular_update"].iloc[0]
    late = run.samples[run.samples["step"] == 40]["angular_update"].iloc[0]
    assert late / early == pytest.approx(0.5, rel=1e-6)
    assert run.scalars.metrics == {"accuracy/top1": 20.0}
    assert run.iterations == 80


def test_a_launch_that_died_at_once_supersedes_nothing(tmp_path: Path) -> None:
    samples = perfect_samples(np.arange(60), np.full(60, 0.1))
    launch(tmp_path, "20260101_000000", [{"lr": 0.1, "step": 50}], samples, RUN)
    launch(tmp_path, "20260101_000100", [], None, RUN)
    (run,) = load_runs(tmp_path)
    assert len(run.samples) == 60
    assert run.iterations == 50


@pytest.mark.parametrize(
    ("lines", "config", "checkpoint", "status"),
    [
        ([{"lr": 1, "step": 100}], "train_cfg = dict(max_iters=100)", None, "finished"),
        ([{"lr": 1, "step": 99}], "train_cfg = dict(max_iters=100)", None, "unfinished"),
        ([{"lr": 1, "step": 99}], "train_cfg = dict(max_iters=100)", "iter_100.pth", "finished"),
        ([{"lr": 1, "step": 9}, {"a": 1, "step": 12}], "train_cfg = dict(max_epochs=12)", None,
         "finished"),
        ([{"lr": 1, "step": 9}], "train_cfg = dict(max_epochs=12)", "epoch_12.pth", "finished"),
        ([{"lr": 1, "step": 9}], "train_cfg = dict(max_epochs=12)", "epoch_11.pth", "unfinished"),
        ([], "model = None", None, "unfinished"),
    ],
)  # fmt: skip
def test_status_of_foreign_runs(
    tmp_path: Path, lines: list, config: str, checkpoint: str | None, status: str
) -> None:
    launch(tmp_path, "20260101_000000", lines, config=config)
    if checkpoint:
        (tmp_path / checkpoint).touch()
    assert load_runs(tmp_path)[0].status == status


def test_status_of_our_own_runs(tmp_path: Path) -> None:
    folder = launch(tmp_path, "20260101_000000")
    for state, status in (
        (RunState("running"), "running"),
        (RunState("failed", error="NaN"), "failed"),
        (RunState("finished"), "finished"),
    ):
        write_state(folder, state)
        assert load_runs(tmp_path)[0].status == status


def test_a_resume_without_our_hook_says_nothing_of_itself(tmp_path: Path) -> None:
    write_state(launch(tmp_path, "20260101_000000"), RunState("failed", error="NaN"))
    launch(tmp_path, "20260102_000000", [{"loss": 1.0, "step": 50}])
    assert load_runs(tmp_path)[0].state is None


def test_a_run_that_has_been_silent_for_long_is_dead(tmp_path: Path) -> None:
    folder = launch(tmp_path, "20260101_000000")
    write_state(folder, RunState("running"))
    path = folder / "smd" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "updated": time.time() - 700}))
    assert load_runs(tmp_path)[0].status == "dead"


def test_broken_and_foreign_files_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = launch(tmp_path, "20260101_000000", [{"lr": 0.1, "step": 50}], config="model = dict(")
    with open(folder / "vis_data" / "scalars.json", "a") as file:
        file.write('{"lr": 0.1, "st')
    with pytest.warns(UserWarning, match="left out") as caught:
        (run,) = load_runs(tmp_path)
    text = " ".join(str(w.message) for w in caught)
    assert "config.py: left out" in text
    assert "1 lines are no JSON objects" in text
    assert run.iterations == 50


def test_nan_is_written_bare_by_mmengine(tmp_path: Path) -> None:
    folder = launch(tmp_path, "20260101_000000")
    (folder / "vis_data" / "scalars.json").write_text('{"lr": 0.1, "loss": NaN, "step": 7}\n')
    assert load_runs(tmp_path)[0].iterations == 7


def test_the_number_of_processes_is_read_off_a_foreign_log(tmp_path: Path) -> None:
    folder = launch(tmp_path, "20260101_000000")
    (folder / "20260101_000000.log").write_text("Runtime environment:\n    GPU number: 8\n")
    assert load_runs(tmp_path)[0].gpus == 8


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        load_runs(tmp_path / "nowhere")


def test_a_resume_that_measures_other_weights_mixes_up_none(tmp_path: Path) -> None:
    both = perfect_samples(np.arange(40), np.full(40, 0.1), weights=2)
    both["weight_norm"] = np.where(both["weight"] == 0, 1.0, 9.0)
    launch(tmp_path, "20260101_000000", [], both, {**RUN, "weights": [weight("a"), weight("b")]})
    one = perfect_samples(np.arange(40, 80), np.full(40, 0.1))
    one["weight_norm"][:] = 9.0
    resumed = {**RUN, "first_step": 40, "weights": [weight("b")]}
    launch(tmp_path, "20260101_000100", [], one, resumed)
    (run,) = load_runs(tmp_path)
    assert run.samples["step"].tolist() == list(range(80))
    assert set(run.samples["weight_norm"]) == {9.0}
    assert run.scores["parameter"].tolist() == ["b"]


def test_a_fresh_start_in_an_old_work_dir_inherits_nothing(tmp_path: Path) -> None:
    lines = [{"lr": 0.1, "step": 50}, {"accuracy/top1": 90.0, "step": 50}]
    launch(tmp_path, "20260101_000000", lines)
    launch(tmp_path, "20260101_000100", [{"lr": 0.1, "step": 9}])
    (run,) = load_runs(tmp_path)
    assert (run.iterations, run.scalars.metrics) == (9, {})
    launch(tmp_path, "20260101_000200", [{"lr": 0.1, "step": 12}], config=CONFIG + "resume = True")
    (run,) = load_runs(tmp_path)
    assert run.iterations == 12


def test_a_resume_continues_what_was_logged(tmp_path: Path) -> None:
    lines = [{"lr": 0.1, "step": 50}, {"accuracy/top1": 90.0, "step": 50}]
    launch(tmp_path, "20260101_000000", lines)
    launch(tmp_path, "20260101_000100", [{"lr": 0.1, "step": 60}], config=CONFIG + "resume = True")
    (run,) = load_runs(tmp_path)
    assert (run.iterations, run.scalars.metrics) == (60, {"accuracy/top1": 90.0})


def test_links_launch_folders_and_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = launch(tmp_path / "runs" / "one", "20260101_000000", [{"lr": 0.1, "step": 5}])
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "linked").symlink_to(tmp_path / "runs" / "one")
    (tmp_path / "links" / "loop").symlink_to(tmp_path / "links")
    assert [run.name for run in load_runs(tmp_path / "links")] == ["linked"]
    assert [run.name for run in load_runs(folder)] == ["one"]
    assert len(load_runs(tmp_path / "runs", tmp_path / "runs", folder)) == 1
    monkeypatch.chdir(tmp_path / "runs" / "one")
    assert [run.name for run in load_runs(".")] == ["one"]


# ------------------------------------------------------------- one history of all launches


def resumed(tmp_path: Path, earlier: dict, first_step: int = 40) -> Run:
    """Two launches of one weight, the first one described by ``earlier``."""
    samples = perfect_samples(np.arange(60), np.full(60, 0.1))
    launch(tmp_path, "20260101_000000", [], samples, {**RUN, "weights": [earlier]})
    later = perfect_samples(np.arange(first_step, first_step + 60), np.full(60, 0.1))
    launch(tmp_path, "20260101_000100", [], later, {**RUN, "first_step": first_step})
    (run,) = load_runs(tmp_path)
    return run


@pytest.mark.parametrize(
    ("earlier", "reason"),
    [
        (
            weight("a", rule=SGDRule(0.3, 0.1, 0.5).to_json()),
            "no prediction: changed during training: momentum from 0.5 to 0.9",
        ),
        (
            weight("a", rule=AdamRule(0.1, 0.1).to_json()),
            "no prediction: changed during training: type from Adam to SGD",
        ),
        (
            weight(
                "a",
                rule=None,
                no_prediction="no prediction: changed during training: momentum from 0.5 to 0.7",
            ),
            "no prediction: changed during training: momentum from 0.5 to 0.7",
        ),
        (
            weight("a", rule=None, no_prediction="no prediction for X"),
            "no prediction: changed during training: an earlier launch had no prediction for X",
        ),
        (
            weight("a", rule={"type": "Later"}),
            "no prediction: changed during training: an earlier launch had "
            "no prediction for {'type': 'Later'}: not a rule known here",
        ),
    ],
)
def test_a_rule_that_a_resume_changed_predicts_nothing(
    tmp_path: Path, earlier: dict, reason: str
) -> None:
    run = resumed(tmp_path, earlier)
    assert run.weights["no_prediction"].tolist() == [reason]
    assert not len(run.predicted)
    assert run.diagnosis["detail"].tolist() == [reason]
    assert len(run.samples) == 100


def test_a_rule_that_no_kept_sample_knows_does_not_count(tmp_path: Path) -> None:
    run = resumed(tmp_path, weight("a", rule=SGDRule(0.1, 0.005, 0.5).to_json()), first_step=0)
    assert run.weights["rule"].tolist() == [RULE.to_json()]
    assert len(run.predicted) == 60


def test_another_learning_rate_after_a_resume_is_no_other_rule(tmp_path: Path) -> None:
    run = resumed(tmp_path, weight("a", rule=RULE.at(0.5, 0.1).to_json()))
    assert len(run.predicted) == 100


def test_rows_of_weights_that_a_killed_run_did_not_describe_are_dropped(tmp_path: Path) -> None:
    samples = perfect_samples(np.arange(60), np.full(60, 0.1), weights=3)
    launch(tmp_path, "20260101_000000", [], samples, RUN)
    (run,) = load_runs(tmp_path)
    assert run.samples["weight"].unique().tolist() == [0]
    assert len(run.samples) == 60


def test_a_weight_that_two_optimizers_step_leaves_two_series(tmp_path: Path) -> None:
    samples = perfect_samples(np.arange(60), np.full(60, 0.1), weights=2)
    samples["weight_norm"] = np.where(samples["weight"] == 0, 1.0, 9.0)
    both = [weight("a", optimizer=name, first_step=0) for name in ("g", "d")]
    launch(tmp_path, "20260101_000000", [], samples, {**RUN, "weights": both})
    later = perfect_samples(np.arange(40, 80), np.full(40, 0.1), weights=2)
    later["weight_norm"] = np.where(later["weight"] == 0, 9.0, 1.0)
    turned = [weight("a", optimizer=name, first_step=40) for name in ("d", "g")]
    launch(tmp_path, "20260101_000100", [], later, {**RUN, "weights": turned})
    (run,) = load_runs(tmp_path)
    assert run.weights["optimizer"].tolist() == ["d", "g"]
    for index, norm in ((0, 9.0), (1, 1.0)):
        series = run.samples[run.samples["weight"] == index]
        assert series["step"].tolist() == list(range(80))
        assert set(series["weight_norm"]) == {norm}


def test_launches_from_before_optimizers_had_names_are_stitched_by_parameter(
    tmp_path: Path,
) -> None:
    first = perfect_samples(np.arange(40), np.full(40, 0.1))
    second = perfect_samples(np.arange(40, 80), np.full(40, 0.1))
    old, new = RUN["weights"], [weight("a", optimizer="", first_step=40)]
    for name, earlier, later in (("upgraded", old, new), ("frozen", new, old)):
        folder = tmp_path / name
        launch(folder, "20260101_000000", [], first, {**RUN, "weights": earlier})
        resumed_run = {**RUN, "first_step": 40, "weights": later}
        launch(folder, "20260101_000100", [], second, resumed_run)
    for run in load_runs(tmp_path):
        assert run.samples["step"].tolist() == list(range(80))


def test_one_launch_reads_as_it_does_when_stitched_with_one_that_died_at_once(
    tmp_path: Path,
) -> None:
    samples = perfect_samples(np.arange(60), np.full(60, 0.1), weights=3)
    samples["unit"] = np.where(samples["weight"] == 1, 4, -1)
    described = [weight("a", changes=[[0, True]]), weight("b", per_filter=True, changes=[])]
    records = {**RUN, "weights": described}
    launch(tmp_path / "one", "20260101_000000", [], samples, records)
    launch(tmp_path / "two", "20260101_000000", [], samples, records)
    launch(tmp_path / "two", "20260101_000100", [], None, records)
    one, two = load_runs(tmp_path)
    assert len(one.samples) == 120
    pd.testing.assert_frame_equal(one.samples, two.samples)
    pd.testing.assert_frame_equal(one.weights, two.weights)


# ------------------------------------------------------------------- what is not there


def test_planned_runs_without_a_folder_are_missing_and_failed_ones_say_why(
    tmp_path: Path,
) -> None:
    planned = {name: PlannedRun("a.py") for name in ("b", "c", "d")}
    write_suite(tmp_path / "suite", planned | {"a": PlannedRun("a.py", "no such file")})
    write_state(launch(tmp_path / "suite" / "c", "20260101_000000"), RunState("running"))
    runs = {run.name: run for run in load_runs(tmp_path)}
    assert {name: run.status for name, run in runs.items()} == {
        "suite/a": "failed",
        "suite/b": "missing",
        "suite/c": "running",
        "suite/d": "missing",
    }
    assert runs["suite/a"].failure == "no such file"
    assert runs["suite/b"].failure == ""


def test_a_process_that_was_seen_to_end_is_no_running_one(tmp_path: Path) -> None:
    folder = launch(tmp_path / "a", "20260101_000000")
    write_state(folder, RunState("running"))
    write_suite(tmp_path, {"a": PlannedRun("a.py", "Killed")})
    (run,) = load_runs(tmp_path)
    assert (run.status, run.failure) == ("failed", "Killed")
    write_state(folder, RunState("failed", error="NaN"))  # its own words are nearer
    (run,) = load_runs(tmp_path)
    assert (run.status, run.failure) == ("failed", "NaN")
    write_state(folder, RunState("running"))  # somebody resumed it since
    assert load_runs(tmp_path)[0].status == "running"
    write_state(folder, RunState("finished"))
    assert load_runs(tmp_path)[0].status == "finished"


def test_runs_of_one_name_below_two_folders_are_told_apart(tmp_path: Path) -> None:
    for name in ("x/one", "y/one", "y/two"):
        launch(tmp_path / name, "20260101_000000", [{"lr": 0.1, "step": 5}])
    names = [run.name for run in load_runs(tmp_path / "x", tmp_path / "y")]
    assert names == [f"{tmp_path}/x/one", f"{tmp_path}/y/one", "two"]


def test_folders_nested_more_deeply_than_functions_may_be(tmp_path: Path) -> None:
    deepest = tmp_path
    for _ in range(1100):
        deepest = deepest / "d"
        deepest.mkdir()
    launch(deepest, "20260101_000000", [{"lr": 0.1, "step": 5}])
    try:
        assert len(load_runs(tmp_path)) == 1
    finally:
        os.rename(tmp_path / "d" / "d", tmp_path / "inner")  # pytest cannot delete it so deep
        subprocess.run(["rm", "-rf", str(tmp_path / "inner")], check=True)


def test_what_a_run_read_is_forgotten_and_read_again(tmp_path: Path) -> None:
    launch(tmp_path, "20260101_000000", [], perfect_samples(range(60), np.full(60, 0.1)), RUN)
    (run,) = load_runs(tmp_path)
    before = set(vars(run))
    with run.briefly():
        assert len(run.scores) == 1
        assert set(vars(run)) > before
    assert set(vars(run)) == before
    kept = run.samples
    with run.briefly():
        assert len(run.predicted) == 60
    assert run.samples is kept
