"""Work dirs of every kind that a report must show, from numbers that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from smd_hooks.records import RunState, write_state
from tests.analysis.work_dirs import TURNED, launch, perfect_samples, turned_samples, weight

HOSTILE_NAME = "<script>window.pwned=1</script>"
HOSTILE_LAYERS = (
    "</script><script>window.pwned=1</script>.weight",
    "<img src=x onerror=window.pwned=1>.weight",
    "<b>{{ 7 * 7 }}</b> & \u2028 $x$ %{x} \udcff.weight",
)
STAMP = "20260101_000000"
JUMP, STEPS = 300, 800


def described(*weights: dict[str, Any]) -> dict[str, Any]:
    return {"first_step": 0, "world_size": 1, "seed": 7, "weights": list(weights)}


def scalar_lines(steps: int = STEPS) -> list[dict[str, Any]]:
    lines = [{"lr": 0.1, "loss": 2 / (1 + i), "step": i} for i in range(0, steps, 50)]
    return [*lines, {"accuracy/top1": 97.5, "accuracy/top5": 99.9, "step": steps}]


def dropped(layers: tuple[str, ...], folder: Path) -> None:
    """Equilibrium, then a learning rate divided by 10, and a classifier beside it."""
    rates = np.where(np.arange(STEPS) < JUMP, 0.1, 0.01)
    samples = perfect_samples(np.arange(STEPS), rates, weights=len(layers))
    weights = [*map(weight, layers), weight("fc.weight", invariant=False)]
    launch(folder, STAMP, scalar_lines(), samples, described(*weights))


def turned(folder: Path) -> None:
    steps = np.arange(STEPS)
    samples = turned_samples(steps, np.where(steps < JUMP, 0.1, 0.01), weights=2)
    weights = [weight(name, rule=TURNED.to_json()) for name in ("a.weight", "b.weight")]
    launch(folder, STAMP, scalar_lines(), samples, described(*weights))


def write_all_kinds(folder: Path) -> None:
    """A run of each kind: with curves, turned, hostile, and four that have no curves."""
    dropped(tuple(f"layer{i}.conv.weight" for i in range(8)), folder / "dropped")
    turned(folder / "turned")
    dropped(HOSTILE_LAYERS, folder / HOSTILE_NAME)
    launch(folder / "foreign", STAMP, scalar_lines())
    nothing = described(weight("a.weight", invariant=False), weight("b.weight", invariant=False))
    launch(
        folder / "nothing",
        STAMP,
        scalar_lines(30),
        perfect_samples(range(30), np.full(30, 0.1)),
        nothing,
    )
    undecided = weight("a.weight")
    del undecided["scale_invariant"]
    launch(folder / "short", STAMP, scalar_lines(10), None, described(undecided))
    failed = launch(folder / "failed", STAMP, [{"lr": 0.1, "loss": 2.0, "step": 10}])
    error = "ValueError: <script>window.pwned=1</script>"
    write_state(failed, RunState("failed", 10, 800, error))
