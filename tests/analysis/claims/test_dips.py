"""Fig. 4: dips of accuracy, their confidence over seeds, and rising angles."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from smd_hooks import load_runs
from smd_hooks.analysis.claims.claim import CannotTell
from smd_hooks.analysis.claims.dips import SecondStage, second_stage
from smd_hooks.analysis.claims.spread import mean_interval, t_quantile
from smd_hooks.analysis.reading.run import Run
from smd_hooks.theory import AdamRule
from tests.analysis.claims.constructed import STEPS, claim, given, stage_run
from tests.analysis.work_dirs import launch, perfect_samples, weight

RATES = np.select([STEPS < 2000, STEPS < 4000], [0.1, 0.01], 0.001)


def dipping(folder: Path, by: float, every: int = 100) -> Run:
    """A run that loses so many points in the course of its second stage, of 2,000 steps."""
    lines = []
    at_once = {2001, 2010}  # the first steps after the drop, which are no part of a dip
    for step in sorted({*range(every, 6501, every), *at_once}):
        early = 2000 < step <= 2200
        before = step <= 2000 or step in at_once
        accuracy = 80.0 if before else 90.0 if early else 90.0 - by
        lines.append({"accuracy/top1": accuracy, "step": step})
    samples = perfect_samples(STEPS, RATES)
    run = {"first_step": 0, "weights": [weight("a")]}
    launch(folder / "run", "20260101_000000", lines, samples, run)
    return load_runs(folder)[0]


@pytest.mark.parametrize("by", [2.5, -1.0, 0.0])
def test_the_dip_of_a_run(tmp_path: Path, by: float) -> None:
    found = second_stage(dipping(tmp_path, by))
    assert found.dip == pytest.approx(by)
    # from 1/√10 to [1 + 9·e^(−4)]^(−½), in windows
    assert found.rise == pytest.approx(2.8, abs=0.2)


def test_validations_too_far_apart_tell_of_no_dip(tmp_path: Path) -> None:
    assert second_stage(dipping(tmp_path, 2.0, every=1000)).dip is None


def test_rescaled_angles_do_not_rise(tmp_path: Path) -> None:
    stage_run(tmp_path / "run", rescaled=True)
    assert second_stage(load_runs(tmp_path)[0]).rise == pytest.approx(1.0, abs=0.01)


def test_a_rule_without_a_prediction_dips_all_the_same(tmp_path: Path) -> None:
    run = dipping(tmp_path, 2.0)
    run.weights["rule"] = [AdamRule(0.1, 0.005, decoupled=False).to_json()]
    found = second_stage(run)
    assert found.dip == pytest.approx(2.0)
    assert found.rise is None


def test_a_run_without_records_has_no_second_stage() -> None:
    assert second_stage(Run("bare", Path("bare"))) == SecondStage(None, None)


def stages(dips: list[float], rise: float | None = 3.0) -> list[SecondStage]:
    return [SecondStage(dip, rise) for dip in dips]


DIPS, NONE = [1.0, 1.5, 0.5, 1.2, 0.8], [0.2, -0.3, 0.1, 0.0, -0.1]


def judged(name: str, sgdm: list[SecondStage], others: list[SecondStage]) -> bool | None:
    facts = {"sgdm": sgdm, "rescaled": others, "adam": stages(NONE, None)}
    return claim(f"smd-fig4-{name}").check(given(second_stage, facts)).holds


def test_a_dip_must_stand_out_of_its_scatter() -> None:
    assert judged("dip", stages(DIPS), stages(NONE)) is True
    assert judged("dip", stages([1.0, -1.5, 0.5, 1.2, 0.8]), stages(NONE)) is False
    assert judged("dip", stages([-x for x in DIPS]), stages(NONE)) is False


def test_the_others_must_dip_less_on_the_same_seeds() -> None:
    assert judged("no-dip", stages(DIPS), stages(NONE)) is True
    assert judged("no-dip", stages(DIPS), stages(DIPS)) is False
    # dips that scatter from seed to seed are not above 0, which alone says nothing
    scattered = [3.0, -1.5, 0.5, 2.0, -0.5]
    assert mean_interval(scattered).low < 0
    assert judged("no-dip", stages(DIPS), stages(scattered)) is False
    # nor does it matter, where the same seeds scatter alike
    wide, less = [5.0, 1.0, 3.0, 9.0, 2.0], [4.2, 0.1, 2.0, 7.9, 1.1]
    assert mean_interval([*wide, *(-x for x in less)]).low < 0
    facts = {"sgdm": stages(wide), "rescaled": stages(less), "adam": stages(less)}
    found = claim("smd-fig4-no-dip").check(given(second_stage, facts))
    assert found.holds is True
    for told in ("sgdm: +4.00 (", "rescaled: +3.06 (", "adam: +3.06 (", "sgdm − adam: +0.94 ("):
        assert told in found.measured


def test_pairs_need_the_same_seeds() -> None:
    facts = {"sgdm": stages(DIPS), "rescaled": stages(NONE), "adam": stages(NONE[:4])}
    with pytest.raises(CannotTell, match="adam and sgdm ran on other seeds"):
        claim("smd-fig4-no-dip").check(given(second_stage, facts))


def test_angles_must_rise_where_they_are_not_rescaled() -> None:
    assert judged("angle", stages(DIPS), stages(NONE, 1.02)) is True
    assert judged("angle", stages(DIPS, 1.4), stages(NONE, 1.02)) is False
    assert judged("angle", stages(DIPS), stages(NONE, 1.6)) is False


def test_what_is_not_there_cannot_be_told() -> None:
    nothing = [SecondStage(None, None)] * 5
    with pytest.raises(CannotTell, match="sgdm: not validated at both ends of stage 2"):
        judged("dip", nothing, stages(NONE))
    with pytest.raises(CannotTell, match="no second stage"):
        judged("angle", nothing, stages(NONE))
    assert claim("smd-fig4-dip").seeds == 5


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042)],
)
def test_quantiles_are_those_of_every_table(freedom: int, value: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(value, abs=5e-4)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    intervals = [mean_interval(random.normal(3.0, 2.0, 5).tolist()) for _ in range(4_000)]
    held = np.mean([one.low <= 3.0 <= one.high for one in intervals])
    assert held == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / 4_000))


def test_one_seed_knows_nothing() -> None:
    alone = mean_interval([2.0])
    assert (alone.low, alone.high) == (-math.inf, math.inf)
