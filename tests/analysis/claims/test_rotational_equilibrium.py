from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smd_hooks import load_runs
from smd_hooks.analysis.claims.claim import CannotTell, Experiment
from smd_hooks.analysis.claims.rotation import (
    Rotation,
    Turning,
    imbalance,
    rotation,
    rotation_of_matrices,
    turning,
)
from smd_hooks.analysis.reading.run import Run
from smd_hooks.theory import AdamRule, equilibrium_angle
from tests.analysis.claims.constructed import bare_run, claim, given
from tests.analysis.work_dirs import RULE, TURNED, launch, perfect_samples, turned_samples, weight

STEPS = np.arange(2_000)
COSINE = 0.1 * (1 + np.cos(np.pi * STEPS / len(STEPS))) / 2  # τ is 50 steps at first, 100 half way
IMPLIED, ALIKE = "re-imagenet-resnet50-angle", "re-imagenet-resnet50-turned"


def written(
    folder: Path, rates: np.ndarray, factors: tuple[float, ...] = (1.0, 1.0), **entry: object
) -> Run:
    """Layers that turn as theory says along a schedule, times a factor each."""
    columns = perfect_samples(STEPS, rates, weights=len(factors))
    columns["angular_update"] = columns["angular_update"] * np.tile(factors, len(STEPS))
    entries = [weight(f"layer{i}", **entry) for i in range(len(factors))]
    run = {"first_step": 0, "weights": entries}
    launch(folder / "run", "20260101_000000", samples=columns, run=run)
    return load_runs(folder)[0]


def test_the_implied_angle_of_a_cosine(tmp_path: Path) -> None:
    found = rotation(written(tmp_path, COSINE))
    assert found is not None
    assert found.peak_angle == pytest.approx(equilibrium_angle(RULE))
    # the norm lags behind a falling learning rate, and the law knows by how much
    assert found.ratio == pytest.approx(found.expected, abs=1e-3)
    assert 0.9 < found.expected < 0.99
    assert found.spread == pytest.approx(1.0)
    assert found.layers == 2
    assert claim(IMPLIED).check(given(rotation, {"sgdm": [found]})).holds is True


def test_layers_that_turn_too_fast_or_unequally_fail(tmp_path: Path) -> None:
    fast = rotation(written(tmp_path / "fast", COSINE, (1.1, 1.1)))
    apart = rotation(written(tmp_path / "apart", COSINE, (0.8, 1.0, 1.0, 1.25)))
    for found in (fast, apart):
        assert claim(IMPLIED).check(given(rotation, {"sgdm": [found]})).holds is False
    assert apart is not None
    assert apart.spread == pytest.approx(1.25 / 0.8, rel=0.1)


def test_what_never_relaxed_tells_nothing(tmp_path: Path) -> None:
    run = written(tmp_path, np.full(len(STEPS), 1e-3))  # τ is 5,000 steps
    assert rotation(run) is None
    with pytest.raises(CannotTell, match="ever relaxed"):
        claim(IMPLIED).check(given(rotation, {"sgdm": [None]}))


def test_matrices_without_a_norm_are_looked_at_where_that_is_claimed(tmp_path: Path) -> None:
    run = written(tmp_path, COSINE, scale_invariant=False)
    assert rotation(run) is None
    found = rotation_of_matrices(run)
    assert found is not None
    assert found.layers == 2
    deit = claim("re-deit-tiny-angle")
    assert deit.check(given(rotation_of_matrices, {"adamw": [found]})).holds is True
    off = Rotation(found.peak_angle, found.expected + 0.11, found.expected, 3.0, 2)
    assert deit.check(given(rotation_of_matrices, {"adamw": [off]})).holds is False


def turned_run(folder: Path, early: float = 1.0, late: float = 1.0) -> Run:
    columns = turned_samples(STEPS[:400], np.full(400, 0.1), weights=2)
    factor = np.where(columns["step"] < 25, early, late)
    columns["angular_update"] = columns["angular_update"] * factor
    entries = [weight(f"layer{i}", rule=TURNED.to_json()) for i in range(2)]
    run = {"first_step": 0, "weights": entries}
    launch(folder / "run", "20260101_000000", samples=columns, run=run)
    return load_runs(folder)[0]


@pytest.mark.parametrize(
    ("early", "late", "holds"), [(1.0, 1.0, True), (0.9, 1.0, False), (1.0, 0.9, False)]
)
def test_turned_from_the_first_step_on(
    tmp_path: Path, early: float, late: float, holds: bool
) -> None:
    found = turning(turned_run(tmp_path, early, late))
    assert found.layers == 2
    assert found.first == pytest.approx(early)
    assert found.as_set == (2 if late == 1 else 0)
    assert claim(ALIKE).check(given(turning, {"rotational-sgd": [found]})).holds is holds
    ours = {"rotational-sgd": [Turning(2, 2, 1.0, 0.1)] * 3, "rotational-adamw": [found]}
    ours["lionar"] = [Turning(9, 9, 1.01, 0.1)]
    assert claim("optimizers-imagenet-turned").check(given(turning, ours)).holds is holds


def test_a_run_of_another_optimizer_is_not_turned(tmp_path: Path) -> None:
    found = turning(written(tmp_path, COSINE))
    assert found.layers == 0
    with pytest.raises(CannotTell, match="no weight that was measured as turned"):
        claim(ALIKE).check(given(turning, {"rotational-sgd": [found]}))
    late = Turning(2, 2, math.nan, 0.1)
    with pytest.raises(CannotTell, match="nothing measured in the first 25 steps"):
        claim(ALIKE).check(given(turning, {"rotational-sgd": [late]}))


def test_imbalance_needs_no_prediction(tmp_path: Path) -> None:
    rule = AdamRule(0.1, 0.005, decoupled=False).to_json()
    run = written(tmp_path, COSINE, (1.0, 4.0, 2.0), rule=rule)
    assert imbalance(run) == pytest.approx(4.0)
    assert imbalance(Run("bare", Path("bare"))) is None


@pytest.mark.parametrize(
    ("adamw", "l2", "holds"), [(1.2, 4.0, True), (1.2, 3.5, False), (0.9, 2.9, False)]
)
def test_unbalanced_beside_adamw(adamw: float, l2: float, holds: bool) -> None:
    facts = {"adamw": [adamw] * 3, "adam-l2": [l2] * 3}
    assert claim("re-adam-l2-balance").check(given(imbalance, facts)).holds is holds


def accurate(role: str, *accuracies: float, **options: float) -> list[Run]:
    return [
        bare_run(f"{role}-seed{seed}", {"accuracy/top1": [(10, 5.0), (90, top1)]}, **options)
        for seed, top1 in enumerate(accuracies)
    ]


@pytest.mark.parametrize(("ours", "holds"), [(75.9, True), (74.9, False)])
def test_zero_shot_is_no_worse_on_average(ours: float, holds: bool) -> None:
    runs = {"sgdm": accurate("a", 75.0, 77.0), "rotational-sgd": accurate("b", ours, ours)}
    check = claim("re-imagenet-resnet50-zero-shot").check
    assert check(Experiment("given", "", runs)).holds is holds
    runs["sgdm"].append(bare_run("without"))
    with pytest.raises(CannotTell, match="logged neither"):
        check(Experiment("given", "", runs))


def test_the_pairs_of_resnet20() -> None:
    roles = claim("re-cifar10-resnet20-b2048-zero-shot").roles
    assert roles == (
        *("adamw-b2048", "rotational-adamw-b2048", "sgdm-b2048", "rotational-sgd-b2048"),
        *("lion-b2048", "rotational-lion-b2048"),
    )


def swept(role: str, by_lr: dict[float, float]) -> list[Run]:
    return [run for lr, top1 in by_lr.items() for run in accurate(f"{role}-lr{lr}", top1, lr=lr)]


@pytest.mark.parametrize(
    ("rotational", "holds"),
    [
        ({0.1: 70.0, 0.2: 72.0, 0.4: 72.5, 0.8: 72.2}, True),
        ({0.1: 70.0, 0.2: 70.0, 0.4: 72.5, 0.8: 70.0}, False),  # not as wide
        ({0.1: 71.0, 0.2: 71.0, 0.4: 71.0, 0.8: 71.0}, False),  # not as good
    ],
)
def test_large_batches_without_warmup(rotational: dict[float, float], holds: bool) -> None:
    sgdm = {0.1: 70.0, 0.2: 71.5, 0.4: 72.0}  # and at .8 it diverged
    runs = {"sgdm": swept("sgdm", sgdm), "rotational-sgd": swept("rotational-sgd", rotational)}
    check = claim("re-imagenet-large-batch-warmup").check
    assert check(Experiment("given", "", runs)).holds is holds
    with pytest.raises(CannotTell, match="has not ended"):
        check(Experiment("given", "", runs, {"sgdm": 1}))
    runs["sgdm"] += accurate("sgdm", 70.0)
    with pytest.raises(CannotTell, match="does not say its lr"):
        check(Experiment("given", "", runs))


def test_records_without_matrices_say_nothing() -> None:
    bare = Run("bare", Path("bare"))
    assert rotation_of_matrices(bare) is None
    assert turning(bare).layers == 0
    assert pd.isna(turning(bare).first)
