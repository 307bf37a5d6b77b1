"""A warmup sweep's work dirs, whose losses and first updates are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from smd_hooks.records import PlannedRun, RecordWriter, RunState, write_state, write_suite
from smd_hooks.records.state import NOT_FINITE
from tests.analysis.report.report_runs import STAMP, described
from tests.analysis.work_dirs import CONFIG, launch, weight

EXPERIMENT = "warmup-gpt"
ROLES = ("adamw", "lionar")
WARMUPS = (0.0, 0.02, 0.1)
RATES = (0.001, 0.002, 0.004, 0.008)
SEEDS = (0, 1, 2)
STEPS = 400
DIVERGED = ("adamw", 0.0, 0.008, 1)
"""Role, warmup, lr and seed of the run whose loss is no longer a number."""
BEYOND = 9.0
"""Loss at the largest learning rate: far above all others."""


def final_loss(role: str, warmup: float, lr: float, seed: int) -> float:
    """Best at lr 0.002; adamw gains 0.3 by a warmup of 0.02, lionar loses 0.1."""
    if lr == RATES[-1]:
        return BEYOND
    gain = {0.0: 0.0, 0.02: 0.3, 0.1: 0.2}[warmup] * (1 if role == "adamw" else -1 / 3)
    return 2.0 + 0.1 * abs(np.log2(lr / 0.002)) - gain + 0.01 * (seed - 1)


def settings() -> Iterator[tuple[str, float, float, int]]:
    """Role, warmup, lr and seed of each run."""
    return product(ROLES, WARMUPS, RATES, SEEDS)


def run_name(role: str, warmup: float, lr: float, seed: int) -> str:
    return f"{role}-warmup{warmup:g}-lr{lr:g}-seed{seed}"


def first_updates(
    weights: int, warmup: float, steps: Sequence[int], total: int
) -> dict[str, np.ndarray]:
    """Samples whose updates are those of their lr; matrix i turns by i + 1 mrad at the full lr."""
    step = np.repeat(np.asarray(steps), weights)
    index = np.tile(np.arange(weights), len(steps))
    share = np.minimum(1.0, (step + 1) / max(1.0, warmup * total))
    angle = 1e-3 * (index + 1) * share
    ones = np.ones(len(step))
    return {
        **dict.fromkeys(("rescale", "angle_factor", "gradient_norm"), ones),
        **dict.fromkeys(("gradient_momentum_dot", "radial_cosine", "radial_update"), 0 * ones),
        "step": step,
        "iteration": 2 * step + 1,  # two micro-batches a step
        "weight": index.astype(np.int16),
        "unit": np.full(len(step), -1, np.int32),
        "lr": 0.1 * share,
        "weight_decay": 0.1 * ones,
        "weight_norm": 3 * ones,
        "update_norm": 3 * angle,
        "angular_update": angle,
    }


def layer_rows(names: Sequence[str], steps: Sequence[int]) -> dict[str, np.ndarray]:
    """Representation change 0.02 and a signal of half the noise, in each layer at each step."""
    values = {"representation_change": 0.02, "signal": 1.0, "noise": 2.0}
    rows = list(product(steps, names, values.items()))
    return {
        "step": np.array([step for step, _, _ in rows]),
        "parameter": np.array([name for _, name, _ in rows], dtype=object),
        "quantity": np.array([quantity for *_, (quantity, _) in rows], dtype=object),
        "value": np.array([value for *_, (_, value) in rows]),
    }


def write_run(
    work_dir: Path,
    lines: Sequence[dict[str, Any]],
    seed: int,
    samples: dict[str, np.ndarray] | None = None,
    layers: dict[str, np.ndarray] | None = None,
    weights: int = 5,
    total: int = STEPS,
    failure: str = "",
) -> None:
    """Write one run of ``total`` steps, of which every second iteration is one."""
    config = CONFIG.replace("seed=7", f"seed={seed}")
    entries = [weight(f"blocks.{i}.mlp.up.weight", invariant=False) for i in range(weights)]
    run = described(*entries) if samples is not None else None
    folder = launch(work_dir, STAMP, lines, samples, run, config)
    if layers is not None:
        writer = RecordWriter(folder)
        writer.append(layers, "layers")
        writer.flush()
    write_state(
        folder, RunState("failed" if failure else "finished", 2 * total, 2 * total, failure)
    )


def write_sweep(
    folder: Path, measured: str = "adamw", experiment: str = EXPERIMENT, option: str = "warmup"
) -> None:
    """Write the whole sweep: 2 roles, 3 warmups, 4 learning rates, 3 seeds.

    One role's runs are measured: all sizes at every fourth step, of five matrices. The run
    :data:`DIVERGED` did so after its validation at step 10.
    """
    names = [f"blocks.{i}.mlp.up.weight" for i in range(5)]
    planned = {}
    for place in settings():
        role, warmup, lr, seed = place
        planned[run_name(*place)] = PlannedRun(
            "gpt.py", experiment=experiment, role=role, options={option: warmup, "lr": lr}
        )
        samples = first_updates(5, warmup, range(0, STEPS, 4), STEPS)
        layers = layer_rows(names, range(0, STEPS, 4))
        lost = place == DIVERGED
        loss = 3.0 if lost else final_loss(*place)
        write_run(
            folder / run_name(*place),
            [{"lr": lr, "loss": 2.5, "step": 10}, {"val/loss": loss, "step": 10}],
            seed,
            samples if role == measured else None,
            layers if role == measured else None,
            failure=f"{NOT_FINITE} at iteration 12" if lost else "",
        )
    write_suite(folder, planned)
