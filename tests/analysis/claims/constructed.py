"""Experiments whose facts are given, and runs whose numbers are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smd_hooks.analysis.claims.claim import Claim, Experiment
from smd_hooks.analysis.claims.ledger import CLAIMS
from smd_hooks.analysis.reading.run import Run
from smd_hooks.analysis.reading.scalars import Scalars, Series
from smd_hooks.records import PlannedRun, RunState, write_state
from smd_hooks.theory import SGDRule, equilibrium_norm
from tests.analysis.work_dirs import CONFIG, launch, perfect_samples, weight

CLOSED_FORM = (1.0, 0.989, 0.373, 0.119)  # of ImageNet's stages, as published settings give it
STEPS = np.arange(0, 6500, 5)
RATES = np.select([STEPS < 500, STEPS < 3500, STEPS < 5500], [0.1, 0.01, 0.001], 0.0001)
DROPS = (500, 3500, 5500)


def claim(name: str) -> Claim:
    (found,) = (one for one in CLAIMS if one.name == name)
    return found


def bare_run(
    name: str,
    metrics: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    **options: float | str,
) -> Run:
    """A run that left nothing but what it logged."""
    series = {metric: Series(list(points)) for metric, points in (metrics or {}).items()}
    planned = PlannedRun("config.py", options=options)
    return Run(name, Path(name), scalars=Scalars(series), planned=planned)


def given(measure: Callable[[Run], Any], facts: Mapping[str, Sequence[Any]]) -> Experiment:
    """An experiment whose runs' facts are these, by role, one per seed."""
    runs = {
        role: [bare_run(f"{role}-seed{seed}") for seed in range(len(those))]
        for role, those in facts.items()
    }
    known = {
        (id(run), measure): fact
        for role, those in facts.items()
        for run, fact in zip(runs[role], those, strict=True)
    }
    return Experiment("given", "", runs, _known=known)


def stage_run(
    work_dir: Path,
    rescaled: bool = False,
    of_law: float = 1.0,
    fading: float = math.inf,
    fc_called: bool = False,
    loss_at_the_drop: float = 0.0,
    of_law_from: int = 0,
    rates: np.ndarray = RATES,
    seed: int = 0,
) -> None:
    """Write two convs that do as theory says, and a classifier that does not.

    From a step on the convs turn by ``of_law`` times as much.
    """
    samples = pd.DataFrame(perfect_samples(STEPS, rates, weights=3))
    if rescaled:  # at r*, and so at Δ*, in every stage
        closed = perfect_samples(STEPS, np.full(len(STEPS), 0.1), weights=3)
        share = np.repeat(rates / 0.1, 3)
        samples["rescale"] = share**0.25
        samples["weight_norm"] = closed["weight_norm"] * share**0.25
        samples["gradient_norm"] = 1 / samples["weight_norm"]
        samples["angular_update"] = closed["angular_update"] * share**0.5
    # the same h̃ from gradients that fade over so many steps, and align with the momentum
    squared, share = samples["gradient_norm"] ** 2, np.exp(-samples["step"] / fading)
    samples["gradient_norm"] *= np.sqrt(share)
    samples["gradient_momentum_dot"] = (1 - share) * squared / (2 * 0.9)
    samples["angular_update"] *= np.where(samples["weight"] == 2, 1.5, 1.0)
    off = (samples["weight"] != 2) & (samples["step"] >= of_law_from)
    samples["angular_update"] *= np.where(off, of_law, 1.0)
    fc = weight("fc.weight", invariant=fc_called, statistic=1e-9 if fc_called else 0.9)
    run = {"first_step": 0, "weights": [weight("a"), weight("b"), fc]}
    columns = {name: samples[name].to_numpy() for name in samples}
    lines = []
    for drop in DROPS:
        accuracy = {drop + i: 90.0 + i % 2 for i in range(-4, 2)}
        accuracy[drop + 1] = accuracy[drop] + 0.5 - loss_at_the_drop
        lines += [{"accuracy/top1": value, "step": step} for step, value in accuracy.items()]
    config = CONFIG.replace("seed=7", f"seed={seed}")
    folder = launch(work_dir, "20260101_000000", lines, columns, run, config)
    write_state(folder, RunState("finished", 6500, 6500))


def walk(
    rule: SGDRule, steps: int, start: float, size: tuple[int, int] = (5, 256), seed: int = 0
) -> dict[str, np.ndarray]:
    """Heavy ball on random tangent gradients of unit norm, from ``start`` times r*.

    Samples of each step, as the hook records them; it knows nothing of the theory but r*.
    """
    random, a = np.random.default_rng(seed), rule.momentum
    w, v = random.normal(size=size), np.zeros(size)
    w *= start * equilibrium_norm(rule, 1.0) / np.linalg.norm(w, axis=1, keepdims=True)
    rows = []
    for step in range(steps):
        norm = np.linalg.norm(w, axis=1, keepdims=True)
        g = random.normal(size=size)
        g -= (g * w).sum(1, keepdims=True) / norm**2 * w
        g /= math.sqrt(size[1]) * norm
        along = (v * g).sum(1)
        v = a * v + g + rule.weight_decay * w
        old, w = w, w - rule.lr * v
        after = np.linalg.norm(w, axis=1)
        cosine = (old * w).sum(1) / norm[:, 0] / after
        rows.append(
            (
                np.full(size[0], step),
                norm[:, 0],
                np.linalg.norm(g, axis=1),
                along,
                np.linalg.norm(w - old, axis=1),
                after * cosine - norm[:, 0],
                np.arccos(cosine),
            )
        )
    names = ("step", "weight_norm", "gradient_norm", "gradient_momentum_dot")
    names += ("update_norm", "radial_update", "angular_update")
    columns = dict(zip(names, (np.concatenate(c) for c in zip(*rows, strict=True)), strict=True))
    count = steps * size[0]
    ones = dict.fromkeys(("rescale", "angle_factor"), np.ones(count))
    return {
        **columns,
        **ones,
        "step": columns["step"].astype(int),
        "iteration": columns["step"].astype(int),
        "weight": np.tile(np.arange(size[0]), steps).astype(np.int16),
        "unit": np.full(count, -1, np.int32),
        "lr": np.full(count, rule.lr),
        "weight_decay": np.full(count, rule.weight_decay),
        "radial_cosine": np.zeros(count),
    }
