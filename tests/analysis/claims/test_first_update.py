from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from smd_hooks import load_runs
from smd_hooks.analysis.claims.claim import CannotTell, Experiment
from smd_hooks.analysis.claims.first_update import SETTLED, first_update, later_update
from smd_hooks.analysis.reading.run import Run
from smd_hooks.records import PlannedRun
from tests.analysis.claims.constructed import bare_run, claim
from tests.analysis.work_dirs import launch, perfect_samples, weight

STEPS = 400
REFERENCE = {1: 1.0, 2: 0.707, 5: 0.450, 10: 0.329, 20: 0.257, 50: 0.227, 400: 0.226}
"""RMS of AdamW's update over the learning rate, random gradients, β = (.9, .95)."""


def adamw_updates(steps: int, size: int = 20_000) -> np.ndarray:
    """RMS of AdamW's update over lr at each step, of gradients that are noise."""
    random, first, second = np.random.default_rng(0), np.zeros(size), np.zeros(size)
    sizes = []
    for t in range(1, steps + 1):
        gradient = random.normal(size=size)
        first = 0.9 * first + 0.1 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        update = first / (1 - 0.9**t) / np.sqrt(second / (1 - 0.95**t))
        sizes.append(math.sqrt((update**2).mean()))
    return np.array(sizes)


ADAMW = adamw_updates(STEPS)


def run_of(folder: Path, sizes: np.ndarray, lr: np.ndarray | float, steps: np.ndarray) -> Run:
    """A run whose updates had these sizes, lr included."""
    rates = np.broadcast_to(np.asarray(lr, float), steps.shape)
    columns = perfect_samples(steps.tolist(), np.full(len(steps), 0.1))
    columns["update_norm"], columns["lr"] = sizes * rates, rates
    launch(folder, "20260101_000000", samples=columns, run={"weights": [weight("a")]})
    (found,) = load_runs(folder.parent)
    found.planned = PlannedRun("config.py", options={"warmup": 0, "lr": 1.0})
    return found


def test_the_reference_is_what_random_gradients_give() -> None:
    assert [ADAMW[t - 1] for t in REFERENCE] == pytest.approx([*REFERENCE.values()], rel=0.02)


@pytest.mark.parametrize("interval", [1, 5, 10, 20])
@pytest.mark.parametrize("steps", [120, 400])
def test_adamws_is_4_times_what_follows_at_any_interval(
    tmp_path: Path, interval: int, steps: int
) -> None:
    """Of a run whose second half cools down: sixty steps at a constant rate are enough."""
    at = np.arange(0, steps, interval)
    lr = np.minimum(1, 2 * (1 - at / steps))
    ratio = first_update(run_of(tmp_path / "run", ADAMW[at], lr, at))
    expected = 1.0 / REFERENCE[50] if steps == 400 else 1.0 / 0.24
    assert ratio == pytest.approx(expected, rel=0.08)


def test_settled_means_that_a_later_start_would_hardly_change_it() -> None:
    assert ADAMW[SETTLED] / ADAMW[-1] < 1.15 < ADAMW[SETTLED // 2] / ADAMW[-1]


@pytest.mark.parametrize("steps", [100, 59])
def test_a_run_that_is_too_short_says_nothing(tmp_path: Path, steps: int) -> None:
    """A hundred steps that cool down have fifty at a constant rate."""
    at = np.arange(steps)
    lr = np.minimum(1, 2 * (1 - at / steps)) if steps == 100 else 1.0
    assert first_update(run_of(tmp_path / "run", ADAMW[at], lr, at)) is None


def test_what_was_not_measured_from_the_start_says_nothing(tmp_path: Path) -> None:
    at = np.arange(1, STEPS)
    assert first_update(run_of(tmp_path / "run", ADAMW[at], 1.0, at)) is None
    assert first_update(bare_run("nothing")) is None


def test_updates_that_shrink_with_the_learning_rate_were_not_large(tmp_path: Path) -> None:
    at = np.arange(STEPS)
    lr = np.where(at < STEPS // 2, 1.0, 0.01)
    constant = run_of(tmp_path / "constant" / "run", np.ones(STEPS), lr, at)
    assert first_update(constant) == pytest.approx(1.0)
    decaying = run_of(tmp_path / "decaying" / "run", np.ones(STEPS), 1 - at / STEPS, at)
    assert first_update(decaying) is None  # at every step another rate: nothing to compare with


@pytest.mark.parametrize(
    ("sizes", "first", "later"),
    [
        (ADAMW, True, True),
        (np.ones(STEPS), False, True),
        (np.where(np.arange(STEPS) % 89 == 0, 9.0, 1.0), True, False),  # now and then one is
    ],
)
def test_adamws_first_update_is_large_and_the_controls_is_not(
    tmp_path: Path, sizes: np.ndarray, first: bool, later: bool
) -> None:
    found = run_of(tmp_path / "run", sizes, 1.0, np.arange(STEPS))
    warmed = bare_run("with-a-warmup", warmup=0.5, lr=1.0)
    for name, expected in (("adamw", first), ("control", later)):
        one = claim(f"warmup-{name}-updates")
        assert one.is_control is (name == "control")
        finding = one.check(Experiment("warmup-gpt", "", {"adamw": [found, warmed]}))
        assert finding.holds is expected
        with pytest.raises(CannotTell, match="no run without a warmup"):
            one.check(Experiment("warmup-gpt", "", {"adamw": [warmed]}))


def test_a_later_update_is_the_first_after_the_middle_third(tmp_path: Path) -> None:
    at = np.arange(0, STEPS, 5)
    sizes = np.ones(STEPS)
    sizes[265:] = 3.0  # the last that is measured ends it at 395, two thirds of which are 264
    assert later_update(run_of(tmp_path / "a" / "run", sizes[at], 1.0, at)) == pytest.approx(3.0)
    assert first_update(run_of(tmp_path / "b" / "run", sizes[at], 1.0, at)) == pytest.approx(1.0)
