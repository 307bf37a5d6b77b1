from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from smd_hooks import LionAR, RotationalAdamW, RotationalSGD, load_runs
from smd_hooks.analysis.claims.claim import CannotTell, Experiment
from smd_hooks.analysis.claims.ledger import CLAIMS
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
from tests.analysis.diagnosis.test_constructed_runs import groups, noisy, trained
from tests.analysis.work_dirs import RULE, TURNED, launch, perfect_samples, turned_samples, weight
from tests.optim.digits import network

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


def turned_run(
    folder: Path,
    factor: np.ndarray | float = 1.0,
    steps: int = 1_000,
    every: int = 1,
    layers: int = 2,
    **columns: np.ndarray,
) -> Run:
    """Layers that turn as set, times a factor at each step."""
    taken = np.arange(0, steps, every)
    samples = turned_samples(taken, np.full(len(taken), 0.1), weights=layers)
    factors = np.broadcast_to(factor, steps)[taken]
    samples["angular_update"] = samples["angular_update"] * np.repeat(factors, layers)
    samples |= {name: np.repeat(values[taken], layers) for name, values in columns.items()}
    entries = [weight(f"layer{i}", rule=TURNED.to_json()) for i in range(layers)]
    run = {"first_step": 0, "weights": entries}
    launch(folder / "run", "20260101_000000", samples=samples, run=run)
    return load_runs(folder)[0]


def within(first: int, last: int, ratio: float, steps: int = 1_000) -> np.ndarray:
    at = np.arange(steps)
    return np.where((at >= first) & (at < last), ratio, 1.0)


def turns(found: Turning) -> bool | None:
    return claim(ALIKE).check(given(turning, {"rotational-sgd": [found]})).holds


@pytest.mark.parametrize(
    ("factor", "holds"),
    [
        (np.ones(1_000), True),
        (within(0, 1, 150.0), True),  # centring the weights turns them, too
        (within(1, 60, 0.68), True),  # AdamW's first directions, remembered
        (within(1, 100, 0.6), False),
        (within(100, 1_000, 0.9), False),
        (within(400, 500, 0.93), False),  # which neither the end nor a median shows
        (within(900, 1_000, 1.06), False),
    ],
)
def test_turned_as_set_all_along(tmp_path: Path, factor: np.ndarray, holds: bool) -> None:
    found = turning(turned_run(tmp_path, factor))
    assert found.layers == 2
    assert len(found.parts) == 9
    assert turns(found) is holds
    fine = (1.0,) * 9
    ours = {"rotational-sgd": [Turning(2, 2, 1.2, fine)] * 3, "rotational-adamw": [found]}
    ours["lionar"] = [Turning(9, 9, 1.0, fine)]
    assert claim("optimizers-imagenet-turned").check(given(turning, ours)).holds is holds


def test_rounding_where_a_schedule_ends_is_no_turning(tmp_path: Path) -> None:
    run = turned_run(tmp_path)
    last = run.samples["step"] == 999
    run.samples.loc[last, "lr"] = 1e-12
    run.samples.loc[last, "angular_update"] = 1e-6  # of a set angle that is smaller by far
    found = turning(run)
    assert found.parts == pytest.approx((1.0,) * 9, rel=0.01)
    assert turns(found) is True


@pytest.mark.parametrize("column", ["angular_update", "weight_norm"])
def test_one_layer_that_does_not_is_enough(tmp_path: Path, column: str) -> None:
    run = turned_run(tmp_path, layers=3)
    run.samples.loc[run.samples["weight"] == 2, column] *= np.linspace(
        1.0, 1.2, 1_000, dtype=np.float32
    )
    found = turning(run)
    assert (found.layers, found.as_set) == (3, 2)
    assert found.parts == pytest.approx((1.0,) * 9)
    assert turns(found) is False
    # a run without samples in the beginning is judged by the rest
    assert turns(Turning(3, 3, math.nan, (1.0,) * 9)) is True
    assert turns(Turning(3, 2, math.nan, (1.0,) * 9)) is False


def test_steps_without_a_gradient_are_left_out(tmp_path: Path) -> None:
    still = within(300, 400, 0.0)
    run = turned_run(tmp_path, still, gradient_norm=still)
    found = turning(run)
    assert found.parts == pytest.approx((1.0,) * 9)
    assert found.as_set == 2


@pytest.mark.parametrize(("steps", "parts"), [(3_000, 2), (1_500, 1), (500, 0), (50, 0)])
def test_sampled_now_and_then_the_parts_are_fewer(tmp_path: Path, steps: int, parts: int) -> None:
    """At an interval of 50 the first 25 steps have one sample: step 0."""
    found = turning(turned_run(tmp_path, within(0, 1, 50.0, steps), steps, every=50))
    assert found.parts == pytest.approx((1.0,) * parts)
    if parts:
        assert turns(found) is True
    else:
        with pytest.raises(CannotTell, match="too few steps with a gradient"):
            turns(found)


@pytest.mark.parametrize("optimizer", [RotationalSGD, RotationalAdamW, LionAR])
def test_real_optimizers_turn_as_set(
    tmp_path: Path, optimizer: type[torch.optim.Optimizer]
) -> None:
    model = network()
    settings = {RotationalSGD: (0.1, 0.005), RotationalAdamW: (0.01, 0.05), LionAR: (0.002, 0.1)}
    lr, decay = settings[optimizer]
    found = turning(
        trained(tmp_path, model, optimizer(groups(model, decay), lr=lr), noisy(), steps=300)
    )
    assert found.layers == 3
    assert turns(found) is True
    if optimizer is RotationalAdamW:  # the limit of the first tenth is no idle one
        assert found.start < 0.93


def test_a_run_of_another_optimizer_is_not_turned(tmp_path: Path) -> None:
    found = turning(written(tmp_path, COSINE))
    assert found.layers == 0
    with pytest.raises(CannotTell, match="no weight that was measured as turned"):
        turns(found)


def test_that_it_is_so_by_construction_is_said() -> None:
    assert all("by construction" in one.says for one in CLAIMS if one.name.endswith("-turned"))


def test_imbalance_needs_no_prediction(tmp_path: Path) -> None:
    rule = AdamRule(0.1, 0.005, decoupled=False).to_json()
    run = written(tmp_path, COSINE, (1.0, 4.0, 2.0), rule=rule)
    assert imbalance(run) == pytest.approx(4.0)
    assert imbalance(Run("bare", Path("bare"))) is None


def test_imbalance_is_judged_while_the_learning_rate_is_large(tmp_path: Path) -> None:
    run = written(tmp_path, COSINE, (1.0, 2.0))
    late = (run.samples["lr"] < 0.05) & (run.samples["weight"] == 1)
    run.samples.loc[late, "angular_update"] *= 10
    assert imbalance(run) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("adamw", "l2", "holds"),
    [
        *((1.2, 4.0, True), (1.2, 3.5, False), (0.9, 2.9, False)),
        *((1.5, 4.6, True), (1.6, 9.0, False)),  # AdamW's own layers must turn alike
    ],
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
    lost = swept("sgdm", {0.8: 0.0})
    diverged = check(Experiment("given", "", runs, {"sgdm": lost}))
    assert diverged.holds is holds
    assert "of 4 learning rates, 1 of them diverged" in diverged.measured
    # a setting of which one seed diverged has no mean
    at_the_best = swept("sgdm", {0.4: 0.0})
    at_the_best[0].name = "sgdm-seed1"
    at_the_best[0].folder = Path("sgdm-seed1")
    found = check(Experiment("given", "", runs, {"sgdm": at_the_best}))
    assert "sgdm: best 71.50" in found.measured
    everywhere = swept("rotational-sgd", rotational)
    with pytest.raises(CannotTell, match="at every learning rate a run diverged"):
        check(
            Experiment("given", "", {**runs, "rotational-sgd": []}, {"rotational-sgd": everywhere})
        )
    runs["sgdm"] += accurate("sgdm", 70.0)
    with pytest.raises(CannotTell, match="does not say its lr"):
        check(Experiment("given", "", runs))


def test_records_without_matrices_say_nothing() -> None:
    bare = Run("bare", Path("bare"))
    assert rotation_of_matrices(bare) is None
    assert turning(bare).layers == 0
    assert turning(bare).parts == ()
