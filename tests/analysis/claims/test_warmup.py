from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from smd_hooks.analysis.claims import warmup, warmup_grid
from smd_hooks.analysis.claims.claim import CannotTell, Experiment, Finding
from smd_hooks.analysis.claims.spread import Interval
from smd_hooks.analysis.reading.run import Run
from tests.analysis.claims.constructed import bare_run, claim
from tests.analysis.claims.grids import BEST, LEVEL, RATES, SPREAD, WARMUPS, end, grid, in_grid

GPT = {one for one in warmup.CLAIMS if one.experiment == "warmup-gpt"}
ROLES = {role for one in GPT for role in one.roles}
NOISE = (-0.1, 0.0, 0.1)
"""Seeds that scatter by more than any gap here: ± 4.303 · .1/√3 = .25."""

AS_CLAIMED = {
    "adamw": grid(0.1),
    "liona": grid(0.06),
    "lionar": grid(0.02),
    "lionar-rrc": grid(0.0),
    "lionar-bias": grid(-0.02),
    "liona-bias": grid(0.05),
    "lionar-no-momentum": grid(0.1, at=3.5),
    "rotational-adamw": grid(0.0),
}


def finding(name: str, **changed: list[Run]) -> Finding:
    runs = AS_CLAIMED | {role.replace("_", "-"): of for role, of in changed.items()}
    return claim(f"warmup-{name}").check(Experiment("warmup-gpt", "", runs))


def test_all_hold_where_losses_are_as_claimed() -> None:
    assert set(AS_CLAIMED) == ROLES
    names = [one.name.removeprefix("warmup-") for one in GPT if "updates" not in one.name]
    assert len(names) == 8
    assert all(finding(name).holds for name in names)
    assert all(one.seeds == 3 for one in warmup.CLAIMS)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("adamw", {"adamw": grid(0.0)}),
        ("liona", {"liona": grid(0.0)}),
        ("liona", {"liona": grid(-0.1)}),
        ("lionar", {"lionar": grid(0.06)}),
        ("lionar", {"lionar": grid(0.1)}),
        ("lionar-rrc", {"lionar_rrc": grid(0.04)}),
        ("lionar-bias", {"lionar_bias": grid(0.04)}),
        ("lionar-bias", {"liona_bias": grid(0.0)}),
        ("no-momentum", {"lionar_no_momentum": grid(0.1, at=3.35)}),
        ("rotational-adamw", {"rotational_adamw": grid(0.04)}),
    ],
)
def test_each_fails_where_they_are_not(name: str, changed: dict[str, list[Run]]) -> None:
    assert finding(name, **changed).holds is False


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("adamw", {"adamw": grid(0.1, spread=NOISE)}),
        ("liona", {"liona": grid(0.06, spread=NOISE)}),
        ("lionar", {"lionar": grid(0.02, spread=NOISE)}),
        ("lionar-rrc", {"lionar_rrc": grid(0.0, spread=NOISE)}),
        ("lionar-bias", {"lionar_bias": grid(-0.02, spread=NOISE)}),
        ("lionar-bias", {"liona_bias": grid(0.05, spread=NOISE)}),
        ("rotational-adamw", {"rotational_adamw": grid(0.0, spread=NOISE)}),
        ("rotational-adamw", {"rotational_adamw": grid(0.009)}),
    ],
)
def test_within_the_noise_neither_a_benefit_nor_none_is_claimed(
    name: str, changed: dict[str, list[Run]]
) -> None:
    found = finding(name, **changed)
    assert found.holds is None
    assert "not decided by 3 seeds" in found.measured


def test_one_part_that_fails_is_enough_and_one_that_is_not_decided_leaves_it_open() -> None:
    noisy, failing = grid(-0.02, spread=NOISE), grid(0.0)
    assert finding("lionar-bias", lionar_bias=noisy, liona_bias=failing).holds is False
    assert finding("lionar-bias", lionar_bias=noisy).holds is None


def test_the_lack_of_momentum_may_be_not_decided() -> None:
    runs = [
        end(3.5 + noise, w, lr, seed)
        for w in WARMUPS
        for lr in RATES
        for seed, noise in enumerate((0.3, 0.0, -0.3))
    ]
    found = finding("no-momentum", lionar_no_momentum=runs)
    assert found.holds is None
    assert "not decided by 3 seeds" in found.measured


def test_what_was_measured_is_said() -> None:
    found = finding("liona")
    assert found.measured == (
        "liona: +0.060 (+0.055 to +0.065; seeds +0.058 +0.060 +0.062), a benefit; "
        "no warmup, lr 0.0012 (best of 3) against warmup 0.5, lr 0.0012 (best of 6)"
    )
    assert "harm" in finding("rotational-adamw", rotational_adamw=grid(-0.05)).measured
    assert ", no benefit;" in finding("rotational-adamw").measured


def test_adamw_must_be_worse_at_every_learning_rate() -> None:
    runs = [r for r in grid(0.1) if not r.name.startswith(f"warmup0.0-lr{BEST}")]
    better = [end(3.3 + level, 0.0, BEST, seed) for seed, level in enumerate(LEVEL)]
    found = finding("adamw", adamw=runs + better)
    assert found.holds is False
    assert "lr 0.0006: +0.100" in found.measured
    assert "lr 0.0012: +0.000" in found.measured


def test_a_learning_rate_at_which_all_diverged_is_no_tie() -> None:
    seeds, rate = range(3), RATES[2]
    lost = [(warmup, rate, seed) for warmup in WARMUPS for seed in seeds]
    check = claim("warmup-adamw").check
    found = check(in_grid(grid(0.1), *lost))
    assert found.holds is True
    assert found.measured.endswith("lr 0.0024: diverged with a warmup and without")
    everywhere = [(w, lr, s) for w in WARMUPS for lr in RATES for s in seeds]
    with pytest.raises(CannotTell, match="at no learning rate did runs end"):
        check(in_grid(grid(0.1), *everywhere))


def test_one_learning_rate_each_cannot_be_compared() -> None:
    runs = [end(3.4, 0, 1e-3, s) for s in range(3)] + [end(3.3, 0.1, 2e-3, s) for s in range(3)]
    with pytest.raises(CannotTell, match="at no learning rate did runs end with and without"):
        finding("adamw", adamw=runs)


def test_what_diverged_is_worst_and_not_left_out() -> None:
    check = claim("warmup-adamw").check
    seeds, rate = range(3), RATES[2]
    without = check(in_grid(grid(0.1), *((0.0, rate, s) for s in seeds)))
    assert without.holds is True
    assert "lr 0.0024: +inf (+inf to +inf" in without.measured
    with_it = check(in_grid(grid(0.1), *((w, rate, s) for w in WARMUPS[1:] for s in seeds)))
    assert with_it.holds is False
    assert "lr 0.0024: -inf" in with_it.measured
    # one seed of three counts as the worst of the others
    once = check(in_grid(grid(0.1), (0.0, rate, 0)))
    assert once.holds is True
    assert "lr 0.0024: +inf (+0.098 to +inf" in once.measured
    by_chance = check(in_grid(grid(0.0), (0.0, rate, 0)))
    assert by_chance.holds is False  # at the other rate there is none
    assert "lr 0.0024: +inf (-0.002 to +inf" in by_chance.measured
    assert "not decided by 3 seeds" in by_chance.measured


def test_nothing_is_gained_or_not_where_every_setting_diverges() -> None:
    """Else an optimizer that never trains would need no warmup."""
    lost = [(w, lr, 0) for w in WARMUPS for lr in RATES]
    of_adamw = in_grid(grid(0.0), *lost)
    its = Experiment(
        "warmup-gpt",
        "",
        {"rotational-adamw": of_adamw.runs["adamw"]},
        {"rotational-adamw": of_adamw.diverged["adamw"]},
    )
    with pytest.raises(CannotTell, match="with a warmup and without, a run diverged"):
        claim("warmup-rotational-adamw").check(its)


def test_one_warmup_is_enough_to_compare_with() -> None:
    runs = [run for run in grid(0.06) if not run.name.startswith("warmup0.1")]
    found = finding("liona", liona=runs)
    assert found.holds is True
    assert found.measured.count("best of 3") == 2


@pytest.mark.parametrize("missing", [(0.0, 2), (0.1, 2)])
def test_two_seeds_are_too_few(missing: tuple[float, int]) -> None:
    """A seed that is missing at one setting is missing: means would be of other seeds."""
    share, seed = missing
    runs = [r for r in grid(0.06) if r.name != f"warmup{share}-lr{RATES[1]}-seed{seed}"]
    with pytest.raises(CannotTell, match="2 of 3 seeds ran at every setting"):
        finding("liona", liona=runs)


def test_other_seeds_are_not_compared() -> None:
    others = [
        bare_run(run.name.replace("seed2", "seed7"), {"val/loss": [(1, 3.3)]}, **options(run))
        for run in grid(0.02)
    ]
    with pytest.raises(CannotTell, match="ran on other seeds"):
        finding("lionar", lionar=others)


def options(run: Run) -> dict[str, float]:
    assert run.planned is not None
    return {name: float(value) for name, value in run.planned.options.items()}


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([run for run in grid(0.1) if options(run)["warmup"] == 0], "has not both"),
        ([end(math.nan, 0, 1.0, seed) for seed in range(3)], "logged no val/loss"),
    ],
)
def test_what_cannot_be_told(runs: list[Run], reason: str) -> None:
    with pytest.raises(CannotTell, match=reason):
        finding("liona", liona=runs)


def beyond(lr: float, runs: list[Run]) -> list[Run]:
    """The runs of a grid that ends at this learning rate."""
    return [run for run in runs if options(run)["lr"] <= lr]


def without_and_with(one: list[Run], other: list[Run]) -> list[Run]:
    """Those without a warmup of one grid, and those with one of another."""
    return [
        *(run for run in one if not options(run)["warmup"]),
        *(run for run in other if options(run)["warmup"]),
    ]


def test_a_benefit_that_a_learning_rate_beyond_the_grid_could_undo_is_not_decided() -> None:
    """But one that the other way's edge can only increase is."""
    inside, edge = grid(0.06), grid(0.06, best=RATES[2])
    undone = finding("liona", liona=without_and_with(edge, inside))
    assert undone.holds is None
    assert "not decided: a best lr is at the edge of the grid" in undone.measured
    assert finding("liona", liona=without_and_with(inside, edge)).holds is True


def test_nor_is_that_there_is_none() -> None:
    inside, edge = grid(-0.1), grid(-0.1, best=RATES[0])
    open_still = without_and_with(inside, edge)
    assert finding("rotational-adamw", rotational_adamw=open_still).holds is None
    settled = without_and_with(edge, inside)
    assert finding("rotational-adamw", rotational_adamw=settled).holds is True


@pytest.mark.parametrize(
    ("role", "way", "gap", "holds"),
    [
        ("liona", "without", 0.06, None),  # it gains more than LionAR: less, with a better rate
        ("liona", "with", 0.06, True),
        ("lionar", "without", 0.06, True),
        ("lionar", "with", 0.06, None),
        ("liona", "without", 0.02, False),  # it gains no more
        ("liona", "with", 0.02, None),
        ("lionar", "without", 0.02, None),
        ("lionar", "with", 0.02, False),
    ],
)
def test_of_two_gains_each_has_its_edges(
    role: str, way: str, gap: float, holds: bool | None
) -> None:
    gains = {"liona": gap, "lionar": 0.02}
    pair = [grid(gains[role], best=RATES[2]), grid(gains[role])]
    at_the_edge = without_and_with(*(pair if way == "without" else reversed(pair)))
    grids = {name: at_the_edge if name == role else grid(gains[name]) for name in gains}
    found = finding("lionar", **grids)
    assert found.measured.count("at the edge (") == 1
    assert found.holds is holds


def test_the_lack_of_momentum_has_edges_too() -> None:
    edge = grid(0.1, at=3.5, best=RATES[0])
    assert finding("no-momentum", lionar_no_momentum=edge).holds is None
    assert finding("no-momentum", lionar=grid(0.0, best=RATES[0])).holds is True


def test_at_one_learning_rate_there_is_no_edge() -> None:
    found = finding("adamw", adamw=beyond(RATES[0], grid(0.1)))
    assert found.holds is True
    assert "edge" not in found.measured


def test_where_both_diverge_neither_gains_less() -> None:
    without = [(0.0, lr, 1) for lr in RATES]
    lost = in_grid(grid(0.06), *without), in_grid(grid(0.02), *without)
    runs, diverged = (
        dict(zip(("liona", "lionar"), (by["adamw"] for by in both), strict=True))
        for both in ([one.runs for one in lost], [one.diverged for one in lost])
    )
    with pytest.raises(CannotTell, match="diverged in the same way"):
        claim("warmup-lionar").check(Experiment("warmup-gpt", "", runs, diverged))


def test_the_control_loses_a_benefit_and_fails_where_it_does_not() -> None:
    assert claim("warmup-control-exchanged").is_control
    found = finding("control-exchanged")
    assert found.holds is True
    assert found.measured.startswith("0 of 7 wrong ways show a benefit; the right one +0.100")
    with pytest.raises(CannotTell, match="no clear benefit to be lost"):
        finding("control-exchanged", adamw=grid(0.0))


def test_the_control_finds_a_criterion_that_is_blind_to_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that goes by the mean alone still calls a benefit what two seeds of three have."""

    def mean_alone(values: Sequence[float]) -> Interval:
        mean = sum(values) / len(values)
        return Interval(mean, mean, mean)

    monkeypatch.setattr(warmup_grid, "interval_of", mean_alone)
    found = finding("control-exchanged")
    assert found.holds is False
    assert found.measured.startswith("3 of 7 wrong ways")


@pytest.mark.parametrize(
    ("experiment", "metric", "unit"),
    [("warmup-imagenet", "accuracy/top1", 1.0), ("warmup-coco", "coco/bbox_mAP", 0.01)],
)
def test_images_are_asked_the_same(experiment: str, metric: str, unit: float) -> None:
    spread = tuple(unit * s / 0.02 for s in SPREAD)

    def judged(name: str, gaps: dict[str, float], width: float = 1.0) -> bool | None:
        scores = {
            role: grid(
                unit * gap,
                at=50 * unit,
                spread=[(-width if role == "lionar" else width) * s for s in spread],
                sign=-1,
                metric=metric,
            )
            for role, gap in gaps.items()
        }
        return claim(f"{experiment}-{name}").check(Experiment(experiment, "", scores)).holds

    as_asked = {"sgdm": 4.0, "adamw": 4.0, "lionar": 2.0, "lionar-bias": 0.0}
    as_asked["rotational-adamw"] = 0.0
    for name in as_asked:
        assert judged(name, as_asked) is True
        assert judged(name, as_asked, width=50) is None
    others = {role: 4.0 - gap for role, gap in as_asked.items()}
    for name in as_asked:
        assert judged(name, others | {"lionar": 4.0}) is False
    assert judged("control-exchanged", as_asked) is True
