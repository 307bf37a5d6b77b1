from __future__ import annotations

import math
from dataclasses import replace

import pytest

from smd_hooks.analysis.claims.claim import CannotTell
from smd_hooks.analysis.claims.drops import Drop, drop_at
from smd_hooks.analysis.claims.evidence import Evidence, evidence
from smd_hooks.analysis.claims.ledger import CLAIMS
from smd_hooks.analysis.claims.stage_ends import NOTHING, Agreement
from smd_hooks.analysis.diagnosis.causes import NORM_DECAY, OFF_THE_LAW, RELAXING
from tests.analysis.claims.constructed import CLOSED_FORM, claim, given

STEADY = (1.0,) * 4
GOOD = Agreement(CLOSED_FORM, CLOSED_FORM, CLOSED_FORM, STEADY, (0.84, 0.83), 0.01, 0.02)
FADED = (1.0, 0.6, 0.2, 0.06)
BAD = Agreement(FADED, CLOSED_FORM, CLOSED_FORM, STEADY, (0.5, 0.83), 0.3, 0.4)
AT_EQUILIBRIUM = replace(
    GOOD, measured=(1.0, 1.01, 1.05, 1.1), drift_corrected=(1.0, 1.0, 1.06, 1.1)
)
LITTLE = (Drop(90.0, 91.0, 0.5), Drop(95.0, 95.2, 0.3), Drop(97.0, 96.9, 0.5))
PLAIN = Evidence(GOOD, GOOD, BAD, 1.0, (RELAXING,), LITTLE)
RESCALED = replace(PLAIN, invariant=AT_EQUILIBRIUM)


def judged(name: str, plain: Evidence = PLAIN, rescaled: Evidence = RESCALED) -> bool | None:
    """A claim of Fig. 3, with two seeds that are as they should be and one that is as given."""
    facts = {"plain": [PLAIN, PLAIN, plain], "rescaled": [RESCALED, RESCALED, rescaled]}
    return claim(f"smd-fig3-imagenet-{name}").check(given(evidence, facts)).holds


def with_ratios(found: Evidence, *measured: float) -> Evidence:
    return replace(found, invariant=replace(found.invariant, measured=measured))


@pytest.mark.parametrize(
    "name",
    [
        "half-way",
        "stage-ends",
        "late-stages",
        "rescaled",
        "drift",
        "law",
        "drops",
        "control-classifier",
    ],
)
def test_three_seeds_as_they_should_be(name: str) -> None:
    assert judged(name) is True
    told = claim(f"smd-fig3-imagenet-{name}").check(
        given(evidence, {"plain": [PLAIN] * 3, "rescaled": [RESCALED] * 3})
    )
    assert "nan" not in told.measured
    assert told.measured.isprintable()


def test_one_seed_off_the_closed_form_is_enough() -> None:
    assert judged("stage-ends", with_ratios(PLAIN, 1.0, 0.989, 0.43, 0.119)) is False
    assert judged("half-way", replace(PLAIN, invariant=BAD)) is False


def test_late_stages_must_stay_below() -> None:
    assert judged("late-stages", with_ratios(PLAIN, 1.0, 0.989, 0.96, 0.119)) is False
    # two stages in all: the first is not late, however short
    two = replace(GOOD, measured=(0.5, 0.4), closed_form=(0.5, 0.4), drift_corrected=(1.0, 0.4))
    assert judged("late-stages", replace(PLAIN, invariant=two)) is False


@pytest.mark.parametrize(
    ("stage", "ratio", "holds"),
    [
        (2, 1.12, True),
        (0, 0.84, False),
        (1, 1.16, False),
        (2, 0.84, False),
        (3, 1.9, False),
        (3, math.nan, False),
    ],
)
def test_rescaled_runs_are_held_to_equilibrium(stage: int, ratio: float, holds: bool) -> None:
    measured = list(AT_EQUILIBRIUM.measured)
    measured[stage] = ratio
    assert judged("rescaled", rescaled=with_ratios(RESCALED, *measured)) is holds


def test_rescaled_runs_must_be_nearer_than_the_plain_one_of_their_seed() -> None:
    assert judged("rescaled", with_ratios(PLAIN, 1.0, 1.0, 1.0, 0.119)) is False
    alone = {"plain": [PLAIN] * 2, "rescaled": [RESCALED] * 3}
    with pytest.raises(CannotTell, match="not every rescaled seed has its plain run"):
        claim("smd-fig3-imagenet-rescaled").check(given(evidence, alone))


def test_rescaled_runs_are_held_to_what_h_did() -> None:
    told = replace(AT_EQUILIBRIUM, drift_corrected=(math.nan, 1.0, 1.12, 1.1))
    assert judged("drift", rescaled=replace(RESCALED, invariant=told)) is False
    assert judged("rescaled", rescaled=replace(RESCALED, invariant=told)) is True


def test_the_law_must_hold_everywhere() -> None:
    assert judged("law", replace(PLAIN, invariant=replace(GOOD, law_worst=0.061))) is False


def test_drops() -> None:
    losing = (*LITTLE[:2], Drop(97.0, 96.3, 0.5))
    assert judged("drops", rescaled=replace(RESCALED, drops=losing)) is False
    assert judged("drops", replace(PLAIN, drops=losing)) is True
    for drops in ((*LITTLE[:2], None), ()):
        facts = {"plain": [PLAIN], "rescaled": [replace(RESCALED, drops=drops)]}
        with pytest.raises(CannotTell, match="not validated"):
            claim("smd-fig3-imagenet-drops").check(given(evidence, facts))


def test_a_drop_is_judged_by_the_steps_before_it() -> None:
    accuracy = {496: 95.0, 497: 92.0, 498: 92.1, 499: 92.1, 500: 91.9, 501: 91.0}
    drop = drop_at(500, accuracy, 0.5)
    assert drop == Drop(91.9, 91.0, 3.0)
    assert not drop.loses
    assert replace(drop, margin=0.8).loses
    assert drop_at(5, {5: 90.0, 6: 91.0}, 0.5) is None
    assert drop_at(5, {4: 90.0, 5: 90.0}, 0.5) is None
    steady = {4: 97.0, 5: 97.0, 6: 96.8}
    assert drop_at(5, steady, 0.5) == Drop(97.0, 96.8, 0.5)
    assert [drop_at(5, {**steady, 6: x}, 0.5).loses for x in (96.5, 96.4)] == [False, True]


@pytest.mark.parametrize(
    "classifier",
    [replace(BAD, measured=CLOSED_FORM), replace(BAD, drift_corrected=FADED), GOOD],
)
def test_a_classifier_that_meets_one_prediction_is_no_control(classifier: Agreement) -> None:
    assert judged("control-classifier", replace(PLAIN, others=classifier)) is False


def test_a_classifier_not_called_so_is_no_control() -> None:
    assert judged("control-classifier", replace(PLAIN, others_z2=1e-6)) is False
    with pytest.raises(CannotTell, match="no decaying weight"):
        judged("control-classifier", replace(PLAIN, others=NOTHING))


def test_without_predictions_nothing_can_be_told() -> None:
    with pytest.raises(CannotTell, match="no scale-invariant weight"):
        judged("stage-ends", replace(PLAIN, invariant=NOTHING))


def control(name: str, role: str, found: Evidence) -> bool | None:
    return claim(f"smd-fig3-imagenet-{name}").check(given(evidence, {role: [found]})).holds


def test_noise_free_control_must_fail_where_it_should() -> None:
    as_expected = replace(
        PLAIN,
        invariant=replace(BAD, drift_corrected=FADED, law_median=0.02, law_worst=0.03),
        gradient_alone=BAD,
    )

    def three(found: Evidence) -> list[bool | None]:
        names = ("control-noise-free", "noise-free-law", "control-gradient-alone")
        return [control(name, "noise-free", found) for name in names]

    assert three(as_expected) == [True, True, True]
    assert three(replace(as_expected, invariant=GOOD)) == [False, True, True]
    # where the law fails with h̃, too, ‖g̃‖² is not what is wrong
    assert three(replace(as_expected, invariant=BAD)) == [True, False, False]
    assert three(replace(as_expected, gradient_alone=GOOD)) == [True, True, False]
    assert three(replace(as_expected, gradient_alone=NOTHING)) == [True, True, False]


@pytest.mark.parametrize(
    "unknown", [(1.0, math.nan, 0.2, 0.06), (1.0, 0.99, math.nan, 0.119), (1.0,)]
)
def test_a_stage_that_is_not_known_is_no_failure_as_it_must(unknown: tuple[float, ...]) -> None:
    lost = replace(BAD, measured=unknown, closed_form=CLOSED_FORM[: len(unknown)])
    with pytest.raises(CannotTell, match="not known how each stage after the first ends"):
        control("control-noise-free", "noise-free", replace(PLAIN, invariant=lost))
    with pytest.raises(CannotTell, match="not known how each stage after the first ends"):
        judged("control-classifier", replace(PLAIN, others=lost))


@pytest.mark.parametrize(("ratio", "holds"), [(0.83, False), (0.951, True), (1.2, True)])
def test_fifteen_epochs(ratio: float, holds: bool) -> None:
    on_its_way = replace(PLAIN, invariant=replace(GOOD, half_way=(ratio, 0.83)))
    facts = {"plain": [on_its_way] * 3, "rescaled": [RESCALED] * 3}
    found = claim("smd-fig3-imagenet-in-15-epochs").check(given(evidence, facts))
    assert found.holds is holds
    assert "theory 0.830" in found.measured
    lost = replace(PLAIN, invariant=replace(GOOD, half_way=(math.nan, math.nan)))
    with pytest.raises(CannotTell, match="no samples in the middle"):
        claim("smd-fig3-imagenet-in-15-epochs").check(given(evidence, {"plain": [lost]}))


def test_what_is_derived_is_not_called_the_papers() -> None:
    claimed = {one.name.removeprefix("smd-fig3-imagenet-"): one.source for one in CLAIMS}
    for name in ("late-stages", "rescaled", "in-15-epochs"):
        assert claimed[name].endswith("Fig. 3")
    for name in ("half-way", "stage-ends", "drift", "law", "drops", "noise-free-law"):
        assert claimed[name].startswith("derived from Wan et al.")
    controls = [one for one in CLAIMS if one.is_control and one.name.startswith("smd-")]
    assert controls
    assert all(one.source.startswith("derived from Wan et al.") for one in controls)


def test_norm_decay_must_break_the_law_and_be_named() -> None:
    broken = replace(PLAIN, invariant=BAD, causes=(RELAXING, NORM_DECAY))
    assert control("control-norm-decay", "norm-decay", broken) is True
    unnamed = replace(broken, causes=(RELAXING, OFF_THE_LAW))
    assert control("control-norm-decay", "norm-decay", unnamed) is False
    unbroken = replace(broken, invariant=GOOD)
    assert control("control-norm-decay", "norm-decay", unbroken) is False


def test_coco_asks_the_same_but_for_the_stage_that_never_arrives() -> None:
    three = replace(
        GOOD,
        measured=(1.0, 0.364, 0.116),
        closed_form=(1.0, 0.364, 0.116),
        drift_corrected=(math.nan, 0.364, 0.116),
    )
    found = given(evidence, {"plain": [replace(PLAIN, invariant=three)]})
    for name in ("stage-ends", "late-stages"):
        assert claim(f"smd-fig3-coco-{name}").check(found).holds is True
