from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import replica
from benchmarks.__main__ import main
from benchmarks.pipelines.demo_data.digits import write_digits
from benchmarks.replica import SETTINGS, judge, plan
from benchmarks.replica_accuracy import Drop, around_drops, drop_at
from benchmarks.replica_agreement import NOTHING, Agreement
from benchmarks.replica_criteria import (
    CLASSIFIER,
    CLASSIFIER_CALLED,
    IN_EQUILIBRIUM,
    NOISE_FREE,
    NORMS_DECAY,
    PLAIN,
    RESCALED,
    Evidence,
    evidence,
    failures,
    row,
)
from benchmarks.trainings import train
from smd_hooks import load_runs
from smd_hooks.analysis.diagnosis.diagnose import NORM_DECAY, OFF_THE_LAW, RELAXING
from smd_hooks.records import RunState, write_state
from tests.analysis.work_dirs import launch, perfect_samples, weight
from tests.conftest import ROOT

CLOSED_FORM = (1.0, 0.989, 0.373, 0.119)  # spec of the replica
STEPS = np.arange(0, 6500, 5)
RATES = np.select([STEPS < 500, STEPS < 3500, STEPS < 5500], [0.1, 0.01, 0.001], 0.0001)
STEADY = (1.0, 1.0, 1.0, 1.0)
FADED = (1.0, 0.6, 0.2, 0.06)
GOOD = Agreement(CLOSED_FORM, CLOSED_FORM, CLOSED_FORM, STEADY, 0.01, 0.02)
BAD = Agreement(FADED, CLOSED_FORM, CLOSED_FORM, STEADY, 0.3, 0.4)
RESCALED_WELL = replace(GOOD, measured=(1.0, 1.01, 1.05, 1.1), drift_corrected=(1, 1, 1.06, 1.1))
DROPS = (Drop(90.0, 91.0, 0.5), Drop(95.0, 95.2, 0.3), Drop(97.0, 96.9, 0.1))
FOUND = Evidence(GOOD, GOOD, BAD, 1.0, False, (RELAXING,), DROPS, GOOD)


def write_run(
    work_dir: Path,
    rescaled: bool = False,
    of_law: float = 1.0,
    fading: float = math.inf,
    fc_called: bool = False,
    loss_at_the_drop: float = 0.0,
) -> None:
    """Two convs that do as theory says, times ``of_law``, and a classifier that does not."""
    samples = pd.DataFrame(perfect_samples(STEPS, RATES, weights=3))
    if rescaled:  # at r*, and so at Δ*, in every stage
        closed = perfect_samples(STEPS, np.full(len(STEPS), 0.1), weights=3)
        share = np.repeat(RATES / 0.1, 3)
        samples["rescale"] = share**0.25
        samples["weight_norm"] = closed["weight_norm"] * share**0.25
        samples["gradient_norm"] = 1 / samples["weight_norm"]
        samples["angular_update"] = closed["angular_update"] * share**0.5
    # the same h̃ from gradients that fade over so many steps, and align with the momentum
    squared, share = samples["gradient_norm"] ** 2, np.exp(-samples["step"] / fading)
    samples["gradient_norm"] *= np.sqrt(share)
    samples["gradient_momentum_dot"] = (1 - share) * squared / (2 * 0.9)
    samples["angular_update"] *= np.where(samples["weight"] == 2, 1.5, of_law)
    fc = weight(CLASSIFIER, invariant=fc_called, statistic=1e-9 if fc_called else 0.9)
    run = {"first_step": 0, "weights": [weight("a"), weight("b"), fc]}
    columns = {name: samples[name].to_numpy() for name in samples}
    lines = []
    for drop in (500, 3500, 5500):
        accuracy = {drop + i: 90.0 + i % 2 for i in range(-4, 2)}
        accuracy[drop + 1] = accuracy[drop] + 0.5 - loss_at_the_drop
        lines += [{"accuracy/top1": value, "step": step} for step, value in accuracy.items()]
    folder = launch(work_dir, "20260101_000000", lines, columns, run)
    write_state(folder, RunState("finished", 6500, 6500))


def test_each_setting_has_its_config() -> None:
    configs = {setting.config for setting in SETTINGS.values()}
    assert configs == {path.name for path in (ROOT / "configs" / "replica").glob("*.py")}


def test_controls_are_run_on_the_first_seed_only(tmp_path: Path) -> None:
    planned = plan(tmp_path, ["plain", "norm-decay"], [3, 4])
    assert list(planned) == ["plain-seed3", "plain-seed4", "norm-decay-seed3"]
    training = planned["plain-seed4"]
    assert training.work_dir == tmp_path / "plain-seed4"
    assert training.options == ("--seed", "4")
    assert (ROOT / training.config).is_file()


@pytest.mark.parametrize(("rescaled", "closed_form"), [(False, CLOSED_FORM), (True, (1.0,) * 4)])
def test_records_that_follow_theory_hold(
    tmp_path: Path, rescaled: bool, closed_form: tuple[float, ...]
) -> None:
    write_run(tmp_path / "run", rescaled)
    found = evidence(load_runs(tmp_path)[0])
    # a fifth of stage 2 is 1.2 τ
    assert found.convs.closed_form == pytest.approx(closed_form, abs=0.015)
    assert found.convs.measured == pytest.approx(found.convs.closed_form, abs=1e-4)
    assert found.convs.drift_corrected[1:] == pytest.approx(found.convs.closed_form[1:], rel=1e-3)
    assert math.isnan(found.convs.drift_corrected[0])
    assert found.convs.driving_moment == pytest.approx(STEADY, rel=1e-4)
    assert failures(SETTINGS["plain"].criteria, found) == []
    assert row(load_runs(tmp_path)[0], found, [])["closed_form_verdict"] == "holds"


@pytest.mark.parametrize(("rescaled", "criteria"), [(False, PLAIN), (True, RESCALED)])
def test_angles_that_are_off_fail_every_prediction(
    tmp_path: Path, rescaled: bool, criteria: list[replica.Criterion]
) -> None:
    write_run(tmp_path / "run", rescaled, of_law=1.2, loss_at_the_drop=2.0)
    failed = failures(criteria, evidence(load_runs(tmp_path)[0]))
    assert len(failed) == len(criteria)


def test_a_rescaled_run_is_judged_beside_the_plain_one(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", rescaled=True)
    plain, rescaled = load_runs(tmp_path)
    assert failures(RESCALED, evidence(rescaled, plain)) == []
    assert failures(RESCALED, evidence(rescaled)) == [IN_EQUILIBRIUM[1][0]]
    # control: the plain run does not keep to what a rescaled one must
    assert failures(RESCALED, evidence(plain, rescaled)) == [name for name, _ in IN_EQUILIBRIUM[:2]]


def test_accuracy_around_drops(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", loss_at_the_drop=1.6)
    kept, lost = map(around_drops, load_runs(tmp_path))
    assert kept == (Drop(90.0, 90.5, 1.0),) * 3
    assert not any(drop.loses for drop in kept)
    assert all(drop.loses for drop in lost)


def test_a_drop_may_cost_what_a_step_costs() -> None:
    drop = drop_at(9, {7: 90.9, 8: 91.2, 9: 91.6, 10: 91.2})
    assert drop == Drop(91.6, 91.2, 0.4)
    assert not drop.loses
    assert replace(drop, after=91.1).loses


def test_a_drop_without_validations_beside_it_is_not_judged() -> None:
    assert drop_at(5, {5: 90.0, 6: 91.0}) is None
    assert drop_at(5, {4: 90.0, 5: 90.0}) is None


def test_the_law_needs_the_alignment_where_there_is_one(tmp_path: Path) -> None:
    write_run(tmp_path / "aligned", fading=1000)
    write_run(tmp_path / "not")
    aligned, without = map(evidence, load_runs(tmp_path))
    assert aligned.convs.law_holds
    assert aligned.convs.driving_moment == pytest.approx(STEADY, rel=1e-4)
    assert aligned.gradient_alone.driving_moment[3] == pytest.approx(math.exp(-3.2), rel=0.1)
    # h̃ that falls by e in 2 τ halves Δ² in the second stage
    assert aligned.gradient_alone.law_median > 0.9 * math.log(2) / 2
    assert without.gradient_alone.law_median == without.convs.law_median


def test_a_classifier_taken_for_scale_invariant_is_a_failure(tmp_path: Path) -> None:
    write_run(tmp_path / "run", fc_called=True)
    failed = failures(CLASSIFIER_CALLED, evidence(load_runs(tmp_path)[0]))
    assert failed == [CLASSIFIER_CALLED[0][0]]


@pytest.mark.parametrize(
    "classifier",
    [replace(BAD, measured=CLOSED_FORM), replace(BAD, drift_corrected=FADED), GOOD],
)
def test_a_classifier_that_meets_one_prediction_is_a_failure(classifier: Agreement) -> None:
    assert failures(CLASSIFIER_CALLED, FOUND) == []
    met = replace(FOUND, classifier=classifier)
    assert failures(CLASSIFIER_CALLED, met) == [CLASSIFIER_CALLED[1][0]]


@pytest.mark.parametrize(
    ("measured", "holds"),
    [
        ((0.5, *CLOSED_FORM[1:]), True),  # the first stage is not scored
        ((1.0, 0.945, 0.373, 0.119), True),
        ((1.0, 0.935, 0.373, 0.119), False),
        ((1.0, 0.989, 0.373, 0.170), False),
        ((1.0, 0.989, math.nan, 0.119), False),
    ],
)
def test_five_points_from_the_closed_form(measured: tuple[float, ...], holds: bool) -> None:
    found = replace(GOOD, measured=measured)
    assert found.within(found.closed_form) is holds
    assert failures(PLAIN[:1], replace(FOUND, convs=found)) == [PLAIN[0][0]] * (not holds)


@pytest.mark.parametrize(
    ("stage", "ratio", "failed"),
    [
        (2, 1.12, []),  # the drift of h̃ explains it
        (0, 0.84, [0]),
        (1, 1.16, [0]),
        (2, 0.84, [0]),
        (2, 1.7, [0, 1]),  # the plain run is nearer
        (3, 1.9, [0, 1]),
        (3, math.nan, [0, 1]),
    ],
)
def test_rescaled_runs_are_held_to_equilibrium(stage: int, ratio: float, failed: list[int]) -> None:
    measured = list(RESCALED_WELL.measured)
    measured[stage] = ratio
    found = replace(FOUND, convs=replace(RESCALED_WELL, measured=tuple(measured)))
    assert failures(IN_EQUILIBRIUM, found) == [IN_EQUILIBRIUM[i][0] for i in failed]


def test_rescaled_runs_are_held_to_what_h_did() -> None:
    assert failures(RESCALED, replace(FOUND, convs=RESCALED_WELL)) == []
    told = replace(RESCALED_WELL, drift_corrected=(math.nan, 1.0, 1.12, 1.1))
    assert failures(RESCALED, replace(FOUND, convs=told)) == [RESCALED[3][0]]


def test_a_drop_that_loses_accuracy_is_a_failure() -> None:
    losing = (*DROPS[:2], Drop(97.0, 96.8, 0.1))
    for drops in (losing, DROPS[:2], ()):
        found = replace(FOUND, convs=RESCALED_WELL, drops=drops)
        assert failures(RESCALED, found) == [IN_EQUILIBRIUM[2][0]]


@pytest.mark.parametrize(("last", "holds"), [(0.124, True), (0.126, False), (0.112, False)])
def test_the_drift_corrected_form_is_followed_in_proportion(last: float, holds: bool) -> None:
    found = replace(GOOD, measured=(*CLOSED_FORM[:3], last))
    assert found.within(found.drift_corrected)
    assert found.follows(found.drift_corrected) is holds
    assert failures(PLAIN, replace(FOUND, convs=found)) == [PLAIN[1][0]] * (not holds)


def test_a_run_that_stops_early_holds_nothing() -> None:
    early = replace(GOOD, measured=CLOSED_FORM[:3])
    assert not early.within(CLOSED_FORM[:3])
    assert early.off(CLOSED_FORM[:3]) == (0, 0)
    assert not NOTHING.within(NOTHING.closed_form)
    assert not NOTHING.law_holds
    assert not NOTHING.law_breaks


@pytest.mark.parametrize(
    ("median", "worst", "holds"),
    [(0.03, 0.06, True), (0.031, 0.06, False), (0.03, 0.061, False), (0.01, math.nan, False)],
)
def test_both_limits_of_the_law(median: float, worst: float, holds: bool) -> None:
    found = replace(GOOD, law_median=median, law_worst=worst)
    assert found.law_holds is holds
    assert found.law_breaks is (not holds and not math.isnan(worst))


def test_noise_free_control_must_fail_where_it_should() -> None:
    as_expected = replace(BAD, drift_corrected=FADED, law_median=0.02, law_worst=0.03)
    as_expected = replace(FOUND, convs=as_expected, gradient_alone=BAD)
    assert failures(NOISE_FREE, as_expected) == []
    closed_form_fits = replace(as_expected, convs=GOOD)
    assert failures(NOISE_FREE, closed_form_fits) == [NOISE_FREE[0][0]]
    law_breaks = replace(as_expected, convs=BAD)
    assert failures(NOISE_FREE, law_breaks) == [NOISE_FREE[1][0], NOISE_FREE[2][0]]
    no_worse = replace(as_expected, gradient_alone=GOOD)
    assert failures(NOISE_FREE, no_worse) == [NOISE_FREE[3][0]]
    assert len(failures(NOISE_FREE, replace(FOUND, convs=NOTHING, gradient_alone=NOTHING))) == 4


def test_norm_decay_must_break_the_law_and_be_named() -> None:
    broken = replace(FOUND, convs=BAD, causes=(RELAXING, NORM_DECAY))
    assert failures(NORMS_DECAY, broken) == []
    assert failures(NORMS_DECAY, replace(broken, causes=(RELAXING, OFF_THE_LAW))) == [
        NORMS_DECAY[1][0]
    ]
    assert failures(NORMS_DECAY, replace(broken, convs=GOOD)) == [NORMS_DECAY[0][0]]


def test_command_judges_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["replica", "--no-train", "--work-dir", str(tmp_path), "--only", "plain", "rescaled"]
    write_run(tmp_path / "plain-seed0")
    assert main([*command, "--seeds", "0"]) == 1
    assert "rescaled-seed0" in capsys.readouterr().out
    write_run(tmp_path / "rescaled-seed0", rescaled=True)
    assert main([*command, "--seeds", "0"]) == 0
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table["run"]) == ["plain-seed0", "rescaled-seed0"]
    assert list(table["verdict"]) == ["holds", "holds"]
    assert table["closed_form_4"].tolist() == pytest.approx([0.119, 1.0], abs=2e-3)
    write_run(tmp_path / "plain-seed1", of_law=1.1)
    assert main([*command, "--seeds", "0", "1"]) == 1
    readme = (tmp_path / "README.md").read_text()
    assert "replica --seeds 0 1 --only plain rescaled --no-train`" in readme
    # 1 and 1.1 times the closed form
    assert "- plain, 2 seeds: Δ/Δ* at the ends of stages 2 to 4, mean ± std" in readme
    assert "0.125 ± 0.006 (0.119, 0.119)" in readme
    assert (
        "FAILS: Δ/Δ* within 0.05 of its closed form; Δ/Δ* within 0.05 and 5% of its drift" in readme
    )
    missed = "- plain-seed1: stage 2 ends at 1.077 for 0.979 (drift-corrected 0.979), h̃ at 1.00 of"
    assert missed in readme
    assert "plain-seed0: stage" not in readme
    assert "- plain: top-1 before each drop and one step after it, mean of the seeds: " in readme
    assert "90.0 to 90.5 (+0.5); 90.0 to 90.5 (+0.5); 90.0 to 90.5 (+0.5)" in readme
    assert "misses: +0.098 at stage 2" in readme


def test_readme_says_that_no_run_misses(tmp_path: Path) -> None:
    write_run(tmp_path / "plain-seed0")
    write_run(tmp_path / "noise-free-seed0", of_law=1.1)  # a control may
    (said,) = replica.closed_form_misses(judge(load_runs(tmp_path), {}))
    assert said.startswith("No run but the controls misses its closed form")


def test_a_training_that_fails_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "plain-seed0")
    (tmp_path / "plain-seed0" / "console.log").write_text("a line\nerror: no disk\n")
    monkeypatch.setattr(replica, "write_digits", lambda folder: None)
    monkeypatch.setattr(replica, "train", lambda trainings: list(trainings))
    command = ["replica", "--work-dir", str(tmp_path), "--only", "plain", "--seeds", "0"]
    assert main(command) == 1
    assert "error: no disk" in capsys.readouterr().out


@pytest.mark.slow
def test_short_real_runs_are_judged_and_found_too_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    data_root = write_digits(tmp_path / "data")
    short = (
        *("--cfg-options", "train_cfg.max_iters=60", "param_scheduler.milestones=[40,50]"),
        f"train_dataloader.dataset.data_root={data_root}",
        f"val_dataloader.dataset.data_root={data_root}",
    )
    trainings = plan(tmp_path / "runs", list(SETTINGS), [0])
    for training in trainings.values():
        training.options = (*training.options, *short)
    assert train(list(trainings.values())) == []
    table = judge(load_runs(tmp_path / "runs"), {}).set_index("run")
    assert set(table.index) == set(trainings)
    assert table.loc["plain-seed0", "closed_form_2"] < 0.5
    assert table.loc["rescaled-seed0", "closed_form_2"] == pytest.approx(1.0, abs=1e-6)
    assert table["angle_ratio_4"].isna().all()
    assert (table["classifier_z2"] > 0.01).all()
    assert table["verdict"].str.contains("FAILS|holds").all()
    assert table.loc["plain-seed0", "verdict"].startswith("FAILS: Δ/Δ*")
