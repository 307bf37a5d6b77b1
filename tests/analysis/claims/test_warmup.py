from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from smd_hooks import load_runs
from smd_hooks.analysis.claims import warmup
from smd_hooks.analysis.claims.claim import CannotTell, Experiment
from smd_hooks.analysis.claims.warmup import first_updates, losses
from smd_hooks.analysis.reading.run import Run
from smd_hooks.records import PlannedRun
from tests.analysis.claims.constructed import bare_run, claim
from tests.analysis.work_dirs import launch, perfect_samples, weight

RATES = (6e-4, 1.2e-3)
ROLES = {role for claim in warmup.CLAIMS for role in claim.roles}


def grid(without: float, best: float, at_the_other: float = 0.05) -> list[Run]:
    """Losses at two learning rates, one of them worse, without a warmup and with two of them."""
    by_warmup = {0: without, 0.1: best + 0.02, 0.5: best}
    return [
        bare_run(
            f"warmup{share}-lr{lr}",
            {"val/loss": [(100, 9.0), (5000, loss + i * at_the_other)]},
            warmup=share,
            lr=lr,
        )
        for share, loss in by_warmup.items()
        for i, lr in enumerate(RATES)
    ]


AS_CLAIMED = {
    "adamw": grid(3.4, 3.3),
    "liona": grid(3.36, 3.3),
    "lionar": grid(3.32, 3.3),
    "lionar-rrc": grid(3.305, 3.3),
    "lionar-bias": grid(3.28, 3.3),
    "liona-bias": grid(3.35, 3.3),
    "lionar-no-momentum": grid(3.6, 3.5),
}


def holds(name: str, **changed: list[Run]) -> bool | None:
    runs = AS_CLAIMED | {role.replace("_", "-"): of for role, of in changed.items()}
    return claim(f"warmup-{name}").check(Experiment("warmup-gpt", "", runs)).holds


def test_all_hold_where_losses_are_as_claimed() -> None:
    assert set(AS_CLAIMED) == ROLES
    names = [one.name.removeprefix("warmup-") for one in warmup.CLAIMS]
    assert all(holds(name) for name in names if name != "adamw-updates")


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("adamw", {"adamw": grid(3.305, 3.3)}),
        ("liona", {"liona": grid(3.305, 3.3)}),
        ("lionar", {"lionar": grid(3.36, 3.3)}),
        ("lionar-rrc", {"lionar_rrc": grid(3.32, 3.3)}),
        ("lionar-bias", {"lionar_bias": grid(3.311, 3.3)}),
        ("lionar-bias", {"liona_bias": grid(3.309, 3.3)}),
        ("no-momentum", {"lionar_no_momentum": grid(3.4, 3.35)}),
    ],
)
def test_each_fails_where_they_are_not(name: str, changed: dict[str, list[Run]]) -> None:
    assert holds(name, **changed) is False


def test_adamw_must_be_worse_at_every_learning_rate() -> None:
    runs = grid(3.4, 3.3)
    good_at_one = bare_run("one", {"val/loss": [(5000, 3.3)]}, warmup=0.0, lr=RATES[1])
    assert holds("adamw", adamw=[runs[0], good_at_one, *runs[2:]]) is False


def test_the_luck_of_a_larger_grid_is_no_benefit() -> None:
    """Two warmups are tried for one run without: by chance the best of them is ahead."""
    assert holds("lionar-bias", lionar_bias=grid(3.301, 3.3)) is True


def test_one_learning_rate_each_cannot_be_compared() -> None:
    runs = [
        bare_run("a", {"val/loss": [(1, 3.4)]}, warmup=0, lr=1e-3),
        bare_run("b", {"val/loss": [(1, 3.3)]}, warmup=0.1, lr=2e-3),
    ]
    with pytest.raises(CannotTell, match="no learning rate ran both with and without"):
        holds("adamw", adamw=runs)


def in_a_grid(*diverged: tuple[float, float]) -> Experiment:
    """AdamW's grid at two learning rates, in which these runs ended early."""
    runs = {(r.planned.options["warmup"], r.planned.options["lr"]): r for r in grid(3.4, 3.3)}
    lost = [runs.pop(place) for place in diverged]
    return Experiment("warmup-gpt", "", {"adamw": [*runs.values()]}, {"adamw": lost})


def test_what_diverged_is_worst_and_not_left_out() -> None:
    worse = claim("warmup-adamw").check
    without = worse(in_a_grid((0, RATES[1])))
    assert without.holds is True
    assert f"+inf at lr {RATES[1]:g}" in without.measured
    with_it = in_a_grid((0.1, RATES[1]), (0.5, RATES[1]))
    assert losses(with_it, "adamw").benefits[RATES[1]] == -math.inf
    assert worse(with_it).holds is False
    # where both ways diverge, going without is not worse
    neither = in_a_grid(*((share, RATES[1]) for share in (0, 0.1, 0.5)))
    assert losses(neither, "adamw").benefits == {RATES[0]: pytest.approx(0.1), RATES[1]: 0.0}
    assert worse(neither).holds is False


def test_single_seeds_are_said() -> None:
    runs = {"liona": grid(3.4, 3.3)}
    check = claim("warmup-liona").check
    assert "(single seed)" in check(Experiment("warmup-gpt", "", runs)).measured
    twice = {"liona": [*grid(3.4, 3.3), *grid(3.4, 3.3)]}
    assert "(2 seeds)" in check(Experiment("warmup-gpt", "", twice)).measured


def test_benefits_are_those_of_the_best_learning_rates() -> None:
    found = losses(Experiment("warmup-gpt", "", {"liona": grid(3.4, 3.3, -0.2)}), "liona")
    assert found.benefit == pytest.approx(0.1)
    assert found.best(lambda warmup: warmup == 0) == pytest.approx(3.2)
    assert found.benefits == pytest.approx(dict.fromkeys(RATES, 0.1))


def test_seeds_are_averaged_and_diverged_runs_are_worst() -> None:
    runs = [
        bare_run(f"a{loss}", {"val/loss": [(1, loss)]}, warmup=share, lr=1.0)
        for share, loss in ((0, 3.0), (0, 4.0), (0.1, 3.2), (0.5, math.nan))
    ]
    found = losses(Experiment("warmup-gpt", "", {"adamw": runs}), "adamw")
    assert found.by_setting == {(0, 1): 3.5, (0.1, 1): 3.2, (0.5, 1): math.inf}
    assert found.benefit == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (grid(3.4, 3.3)[:2], "not both runs without a warmup and with one"),
        ([bare_run("a", {"val/loss": [(1, 3.0)]}, lr=1.0)], "does not say its warmup"),
        ([bare_run("a", warmup=0, lr=1.0)], "logged no val/loss"),
    ],
)
def test_what_cannot_be_told(runs: list[Run], reason: str) -> None:
    with pytest.raises(CannotTell, match=reason):
        claim("warmup-liona").check(Experiment("warmup-gpt", "", {"liona": runs}))


@pytest.mark.parametrize(("factor", "large"), [(4.0, True), (1.5, False)])
def test_first_updates(tmp_path: Path, factor: float, large: bool) -> None:
    columns = perfect_samples(np.arange(300), np.full(300, 0.1))
    columns["update_norm"] = columns["update_norm"] * np.where(np.arange(300) < 5, factor, 1.0)
    run = {"first_step": 0, "weights": [weight("a")]}
    launch(tmp_path / "run", "20260101_000000", samples=columns, run=run)
    found = load_runs(tmp_path)[0]
    assert first_updates(found) == pytest.approx(factor, rel=0.02)
    found.planned = PlannedRun("config.py", options={"warmup": 0, "lr": 1.0})
    other = bare_run("with-a-warmup", warmup=0.5, lr=1.0)
    check = claim("warmup-adamw-updates").check
    assert check(Experiment("warmup-gpt", "", {"adamw": [found, other]})).holds is large
    with pytest.raises(CannotTell, match="no run without a warmup"):
        check(Experiment("warmup-gpt", "", {"adamw": [other]}))


@pytest.mark.parametrize("rates", ["constant", "decaying"])
def test_updates_that_shrink_with_the_learning_rate_were_not_large(
    tmp_path: Path, rates: str
) -> None:
    """A third of the run at one learning rate; what follows is smaller as the lr is."""
    steps = np.arange(600)
    lr = np.where(steps < 200, 0.1, 0.1 * (600 - steps) / 400)
    if rates == "decaying":  # from the first step on: there is nothing to compare with
        lr = 0.1 * (600 - steps) / 600
    columns = perfect_samples(steps, np.full(600, 0.1))
    columns["update_norm"] = columns["update_norm"] * (lr / 0.1) ** 2
    columns["lr"] = lr
    run = {"first_step": 0, "weights": [weight("a")]}
    launch(tmp_path / "run", "20260101_000000", samples=columns, run=run)
    found = first_updates(load_runs(tmp_path)[0])
    assert found == (pytest.approx(1.0, rel=0.02) if rates == "constant" else None)
