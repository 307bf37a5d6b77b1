from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smd_hooks import load_runs
from smd_hooks.analysis.claims.evidence import Z2_LIMIT, Evidence, evidence
from smd_hooks.analysis.claims.stage_ends import NOTHING, Agreement
from smd_hooks.analysis.reading.run import Run
from smd_hooks.measure import verdict
from tests.analysis.claims.constructed import CLOSED_FORM, STEPS, stage_run

STEADY = (1.0, 1.0, 1.0, 1.0)
GOOD = Agreement(CLOSED_FORM, CLOSED_FORM, CLOSED_FORM, STEADY, (0.83, 0.83), 0.01, 0.02)


def found_in(folder: Path) -> Evidence:
    return evidence(load_runs(folder)[0])


@pytest.mark.parametrize(("rescaled", "closed_form"), [(False, CLOSED_FORM), (True, (1.0,) * 4)])
def test_records_that_follow_theory(
    tmp_path: Path, rescaled: bool, closed_form: tuple[float, ...]
) -> None:
    stage_run(tmp_path / "run", rescaled)
    found = found_in(tmp_path)
    convs = found.invariant
    # a fifth of stage 2 is 1.2 τ
    assert convs.closed_form == pytest.approx(closed_form, abs=0.015)
    assert convs.measured == pytest.approx(convs.closed_form, abs=1e-4)
    assert convs.drift_corrected[1:] == pytest.approx(convs.closed_form[1:], rel=1e-3)
    assert math.isnan(convs.drift_corrected[0])
    assert convs.driving_moment == pytest.approx(STEADY, rel=1e-4)
    # [1 + 9·e^(−3)]^(−½) = .83 in the middle of six τ
    assert convs.half_way == pytest.approx((1.0, 1.0) if rescaled else (0.83, 0.83), abs=5e-3)
    assert convs.law_holds
    assert found.others_called
    assert found.others_miss
    assert [drop.loses for drop in found.drops if drop] == [False] * 3


def test_stages_are_those_of_the_run(tmp_path: Path) -> None:
    """COCO's schedule has three, a constant learning rate one; a schedule may end at 0."""
    three = np.select([STEPS < 500, STEPS < 1000], [0.1, 0.01], 0.001)
    stage_run(tmp_path / "three", rates=three)
    stage_run(tmp_path / "one", rates=np.full(len(STEPS), 0.1))
    one, found = map(evidence, load_runs(tmp_path))
    # 1 τ at a tenth, and a ninetieth of what is left at a hundredth
    assert found.invariant.closed_form == pytest.approx((1.0, 0.46, 0.2), abs=0.06)
    assert found.invariant.measured == pytest.approx(found.invariant.closed_form, abs=1e-4)
    assert found.invariant.within(found.invariant.closed_form)
    assert len(one.invariant.measured) == 1
    assert not one.invariant.within(one.invariant.closed_form)  # nothing to be near to
    assert math.isnan(one.invariant.half_way[0])


def test_samples_at_a_learning_rate_of_0_are_left_out(tmp_path: Path) -> None:
    stage_run(tmp_path / "run")
    run = load_runs(tmp_path)[0]
    run.samples.loc[run.samples["step"] == STEPS[-1], "lr"] = 0.0
    assert evidence(run).invariant.measured == pytest.approx(CLOSED_FORM, abs=0.015)


def test_the_law_needs_the_alignment_where_there_is_one(tmp_path: Path) -> None:
    stage_run(tmp_path / "aligned", fading=1000)
    stage_run(tmp_path / "not")
    aligned, without = map(evidence, load_runs(tmp_path))
    assert aligned.invariant.law_holds
    assert aligned.invariant.driving_moment == pytest.approx(STEADY, rel=1e-4)
    assert aligned.gradient_alone.driving_moment[3] == pytest.approx(math.exp(-3.2), rel=0.1)
    # h̃ that falls by e in 2 τ halves Δ² in the second stage
    assert aligned.gradient_alone.law_median > 0.9 * math.log(2) / 2
    assert aligned.gradient_alone.law_breaks
    assert without.gradient_alone.law_median == without.invariant.law_median


def test_the_law_is_judged_in_each_stage(tmp_path: Path) -> None:
    """A thirteenth of the run is off by a tenth: no median over the run sees it."""
    last = [step for step in STEPS if step >= 6000]
    rates = np.select([STEPS < 500, STEPS < 3500, STEPS < 6000], [0.1, 0.01, 0.001], 0.0001)
    stage_run(tmp_path / "run", rates=rates, of_law=1.1, of_law_from=6000)
    assert len(last) / len(STEPS) < 0.1
    run = load_runs(tmp_path)[0]
    assert run.scores["trajectory_error"].max() < 1e-3
    found = evidence(run).invariant
    assert found.law_median == pytest.approx(math.log(1.1), rel=0.02)
    assert found.law_breaks
    # of the fc this is the same, and it is not among them
    assert found.law_worst < 1e-3


def test_a_classifier_taken_for_scale_invariant_is_noticed(tmp_path: Path) -> None:
    stage_run(tmp_path / "run", fc_called=True)
    assert not found_in(tmp_path).others_called


def test_a_run_without_records_has_no_evidence() -> None:
    found = evidence(Run("bare", Path("bare")))
    assert found.invariant == NOTHING
    assert not found.others_called
    assert not found.others_miss


def test_the_limit_is_the_measurement_s() -> None:
    assert Z2_LIMIT == verdict.Z2_LIMIT


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


@pytest.mark.parametrize(("last", "holds"), [(0.124, True), (0.126, False), (0.112, False)])
def test_the_drift_corrected_form_is_followed_in_proportion(last: float, holds: bool) -> None:
    found = replace(GOOD, measured=(*CLOSED_FORM[:3], last))
    assert found.within(found.drift_corrected)
    assert found.follows(found.drift_corrected) is holds


@pytest.mark.parametrize(
    ("median", "worst", "holds"),
    [(0.03, 0.06, True), (0.031, 0.06, False), (0.03, 0.061, False), (0.01, math.nan, False)],
)
def test_both_limits_of_the_law(median: float, worst: float, holds: bool) -> None:
    found = replace(GOOD, law_median=median, law_worst=worst)
    assert found.law_holds is holds
    assert found.law_breaks is (not holds and not math.isnan(worst))


def test_nothing_holds_where_nothing_was_predicted() -> None:
    assert not NOTHING.within(NOTHING.closed_form)
    assert not NOTHING.law_holds
    assert not NOTHING.law_breaks
