from __future__ import annotations

import math

import numpy as np
import pytest

from smd_hooks.analysis.claims.claim import CannotTell, Experiment
from smd_hooks.analysis.claims.spread import Interval, mean_interval
from smd_hooks.analysis.claims.warmup_grid import (
    ACCURACY,
    BOX_MAP,
    EXCHANGES,
    LOSS,
    Gap,
    Grid,
    Setting,
    exceeds,
    grid_of,
    interval_of,
    paired,
)
from smd_hooks.analysis.reading.run import Run
from tests.analysis.claims.constructed import bare_run
from tests.analysis.claims.grids import BEST, LEVEL, RATES, SPREAD, WARMUPS, end, grid, in_grid


def gap_of(experiment: Experiment) -> Gap:
    found = grid_of(experiment, "adamw", LOSS).gap()
    assert found is not None
    return found


def test_gaps_are_those_of_each_seed_at_the_best_settings() -> None:
    gap = gap_of(in_grid(grid(0.1)))
    assert gap.without.setting == Setting(0.0, BEST)
    assert gap.with_one.setting == Setting(0.5, BEST)
    assert gap.by_seed == pytest.approx([0.1 + s for s in SPREAD])
    assert np.ptp(gap.without.costs) > 100 * np.ptp(gap.by_seed)  # no seed's level is in them
    assert (gap.without.settings, gap.with_one.settings) == (3, 6)


def test_the_interval_is_students() -> None:
    interval = gap_of(in_grid(grid(0.1))).interval
    half = 4.302653 * np.std(SPREAD, ddof=1) / math.sqrt(3)
    assert (interval.mean, interval.low, interval.high) == pytest.approx(
        (0.1, 0.1 - half, 0.1 + half)
    )


def test_the_best_is_so_on_the_mean_and_not_on_a_lucky_seed() -> None:
    runs = grid(0.1)
    lucky = end(2.0, 0.0, 3e-3, 0)
    others = [end(9.0, 0.0, 3e-3, seed) for seed in (1, 2)]
    assert gap_of(in_grid([*runs, lucky, *others])).without.setting == Setting(0.0, BEST)


def test_a_best_at_the_edge_is_told() -> None:
    rates = (1e-4, 2e-4, 4e-4)
    costs = {Setting(w, lr): (float(i == 1) - w,) for w in (0.0, 0.1) for i, lr in enumerate(rates)}
    at_the_edge = Grid(costs, (0,))
    assert at_the_edge.best().at_the_edge
    inside = Grid({place: (-cost[0],) for place, cost in costs.items()}, (0,))
    assert inside.best().setting.lr == 2e-4
    assert not inside.best().at_the_edge


def test_of_accuracies_the_highest_is_best_and_a_gap_is_positive_where_a_warmup_helps() -> None:
    runs = grid(2.0, 90.0, sign=-1, metric="accuracy/top1")
    found = grid_of(Experiment("", "", {"adamw": runs}), "adamw", ACCURACY).gap()
    assert found is not None
    assert found.interval.mean == pytest.approx(2.0)
    # as a loss it would be one that a warmup raises
    as_losses = [end(run.scalars.metrics["accuracy/top1"], *place(run)) for run in runs]
    assert gap_of(in_grid(as_losses)).interval.mean < 0


def place(run: Run) -> tuple[float, float, int]:
    assert run.planned is not None
    options = run.planned.options
    return float(options["warmup"]), float(options["lr"]), int(run.name[-1])


def test_a_detector_that_finds_nothing_is_worst() -> None:
    runs = [
        end(value, w, 1.0, seed, "coco/bbox_mAP")
        for w, value in ((0.0, math.nan), (0.1, 0.2))
        for seed in range(3)
    ]
    found = grid_of(Experiment("", "", {"adamw": runs}), "adamw", BOX_MAP)
    assert found.costs[Setting(0.0, 1.0)] == (math.inf,) * 3
    assert found.costs[Setting(0.1, 1.0)] == (-0.2,) * 3


def test_one_diverged_seed_makes_a_setting_worse_than_any_without() -> None:
    gap = gap_of(in_grid(grid(0.1), (0.0, BEST, 1)))
    assert gap.without.setting == Setting(0.0, RATES[0])
    assert gap.interval.mean == pytest.approx(0.15)
    # of two such settings, the one with fewer
    lost = [(0.0, lr, seed) for lr in (*RATES[1:], RATES[0]) for seed in range(2)][:5]
    gap = gap_of(in_grid(grid(0.1), *lost))
    assert (gap.without.setting, gap.without.diverged) == (Setting(0.0, RATES[0]), 1)
    assert gap.interval.mean == gap.interval.high == math.inf
    assert math.isfinite(gap.interval.low)


def test_a_loss_that_is_no_number_has_diverged() -> None:
    runs = [
        bare_run(f"{w}-seed0", {"val/loss": [(1, loss)]}, warmup=w, lr=1.0)
        for w, loss in ((0.0, math.nan), (0.1, 3.0))
    ]
    assert gap_of(in_grid(runs)).by_seed == (math.inf,)


def test_only_seeds_that_ran_at_every_setting_count() -> None:
    runs = [run for run in grid(0.1) if place(run) != (0.1, RATES[1], 2)]
    found = grid_of(in_grid(runs), "adamw", LOSS)
    assert found.seeds == (0, 1)
    assert {len(costs) for costs in found.costs.values()} == {2}
    assert found.best().costs == pytest.approx([3.3 + LEVEL[0], 3.3 + LEVEL[1]])


def test_a_grid_with_one_way_only_has_no_gap() -> None:
    runs = grid(0.1)
    found = grid_of(in_grid([run for run in runs if place(run)[0] == 0]), "adamw", LOSS)
    assert found.gap() is None
    # each learning rate has its own
    other = [run for run in runs if place(run)[0] == 0 or place(run)[1] == RATES[0]]
    found = grid_of(in_grid(other), "adamw", LOSS)
    assert found.gap(RATES[1]) is None
    at_one = found.gap(RATES[0])
    assert at_one is not None
    assert at_one.interval.mean == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([], "no seed ran at every setting"),
        ([end(3.0, 0, 1.0, 0), end(3.0, 0.1, 1.0, 1)], "no seed ran at every setting"),
        ([bare_run("a-seed0", {"val/loss": [(1, 3.0)]}, lr=1.0)], "does not say its warmup"),
        ([bare_run("a", {"val/loss": [(1, 3.0)]}, warmup=0, lr=1.0)], "does not say .* seed"),
        ([end(math.nan, 0, 1.0, 0)], "logged no val/loss"),
        ([end(3.0, 0, 1.0, 0), end(3.1, 0, 1.0, 0)], "two runs at warmup 0, lr 1, seed 0"),
    ],
)
def test_what_is_no_grid(runs: list[Run], reason: str) -> None:
    with pytest.raises(CannotTell, match=reason):
        grid_of(Experiment("", "", {"adamw": runs}), "adamw", LOSS)


def test_exchanged_warmups_are_those_of_none_on_each_set_of_seeds() -> None:
    found = grid_of(in_grid(grid(0.3)), "adamw", LOSS)
    wrong = [*found.exchanged(0.5)]
    assert len(wrong) == 7  # sets of three seeds, but for the empty one
    chosen = set()
    for one in wrong:
        for lr in RATES:
            none, short, long = (one.costs[Setting(w, lr)] for w in WARMUPS)
            right, right_short, right_long = (found.costs[Setting(w, lr)] for w in WARMUPS)
            seeds = [i for i in range(3) if none[i] != right[i]]
            assert [none[i] for i in seeds] == [right_long[i] for i in seeds]
            for exchanged, own in ((long, right_long), (short, right_short)):
                wanted = [(right if i in seeds else own)[i] for i in range(3)]
                assert [*exchanged] == wanted
            chosen.add(tuple(seeds))
    assert chosen == {(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}


def test_what_was_not_run_both_ways_is_not_exchanged() -> None:
    costs = {Setting(0.0, 1.0): (1.0,), Setting(0.1, 1.0): (2.0,), Setting(0.1, 3.0): (4.0,)}
    (wrong,) = Grid(costs, (0,)).exchanged(0.1)
    swapped = {Setting(0.0, 1.0): (2.0,), Setting(0.1, 1.0): (1.0,), Setting(0.1, 3.0): (4.0,)}
    assert wrong.costs == swapped  # at the other learning rate there is nothing to exchange with


def test_many_seeds_do_not_make_it_endless() -> None:
    costs = {Setting(w, 1.0): (w,) * 30 for w in (0.0, 0.1)}
    assert sum(1 for _ in Grid(costs, tuple(range(30))).exchanged(0.1)) == EXCHANGES == 2**10 - 1


@pytest.mark.parametrize(
    ("values", "interval"),
    [
        ((math.inf,) * 3, (math.inf,) * 3),
        ((-math.inf,) * 2, (-math.inf,) * 3),
        ((math.inf, 0.1, 0.1), (math.inf, 0.1, math.inf)),
        ((-math.inf, 0.1, 0.1), (-math.inf, -math.inf, 0.1)),
        ((math.inf, -0.3), (math.inf, -0.3, math.inf)),
        ((0.5,), (0.5, -math.inf, math.inf)),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_intervals_at_the_limits(values: tuple[float, ...], interval: tuple[float, ...]) -> None:
    found = interval_of(values)
    assert (found.mean, found.low, found.high) == pytest.approx(interval)


def test_a_diverged_seed_counts_as_much_as_any_other_at_least() -> None:
    found = interval_of((0.1, math.inf, 0.12))
    assert found.low == pytest.approx(mean_interval((0.1, 0.12, 0.12)).low)
    assert interval_of((-0.1, -math.inf, -0.12)).high == pytest.approx(-found.low)
    # whatever it would have been, had it been that much: and not what Student makes of outliers
    assert mean_interval((0.1, 10.0, 0.12)).low < 0 < found.low


def test_where_one_seed_diverges_either_way_nothing_is_decided() -> None:
    found = interval_of((math.inf, -math.inf, 0.1))
    assert math.isnan(found.mean)
    assert exceeds(found, 0.01) is None


def test_what_diverged_both_ways_makes_no_difference() -> None:
    assert paired((math.inf, math.inf, 2.0), (math.inf, 1.0, 1.5)) == (0.0, math.inf, 0.5)
    assert paired((-math.inf, math.inf), (-math.inf, -math.inf)) == (0.0, math.inf)


@pytest.mark.parametrize(
    ("low", "high", "above"),
    [(0.011, 0.2, True), (0.009, 0.2, None), (-0.2, 0.01, False), (-0.2, 0.011, None)],
)
def test_an_interval_with_both_sides_of_a_limit_decides_nothing(
    low: float, high: float, above: bool | None
) -> None:
    assert exceeds(Interval((low + high) / 2, low, high), 0.01) is above


def test_the_luck_of_a_larger_grid_is_measured() -> None:
    """The best of 15 is ahead of the best of 3 by luck alone; three seeds hardly ever call it."""
    random, called, ahead = np.random.default_rng(0), 0, []
    warmups, rates = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5), (1.0, 2.0, 3.0)
    for _ in range(400):
        costs = {
            Setting(w, lr): tuple(random.normal(3.3, 0.005, 3)) for w in warmups for lr in rates
        }
        gap = Grid(costs, (0, 1, 2)).gap()
        assert gap is not None
        ahead.append(gap.interval.mean)
        called += exceeds(gap.interval, LOSS.negligible) is True
    assert 0 < np.mean(ahead) < LOSS.negligible
    assert called / 400 < 0.05
