"""Work dirs as MMEngine and the hook leave them, from theory: thousands in a minute.

Each layer of a run follows its update rule's law under noise of its own, through one drop of
the learning rate, so that reading, scoring and diagnosing do what they do with real runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smd_hooks.records import RecordWriter, RunState, write_state
from smd_hooks.theory import (
    AdamRule,
    SGDRule,
    StepMoments,
    UpdateRule,
    equilibrium_norm,
    relaxation_time,
    rescale_factor,
    second_moment_trajectory,
)

DROP, DROP_AT = 10.0, 0.6
"""By what the learning rate is divided, and after which share of the steps."""
RELAXATIONS = 8.0
"""Relaxation times before the drop: weights start at twice their norm and are settled by then."""
SCATTER = 0.1
"""Of the logarithm of the driving moment, from step to step."""
PARTS = 4
"""Files that a run's samples come in."""
TIMESTAMP = "20260101_000000"


@dataclass(frozen=True)
class Kind:
    """A kind of run.

    Attributes:
        name: What its folders begin with.
        optimizer: As a config has it, without the weight decay, which sets the time scale.
        rule: What that optimizer does.
        rescaled: Whether weights are rescaled at the drop.
    """

    name: str
    optimizer: Mapping[str, Any]
    rule: UpdateRule
    rescaled: bool = False


KINDS = (
    Kind("sgd", {"type": "SGD", "lr": 0.1, "momentum": 0.9}, SGDRule(0.1, 1.0, 0.9)),
    Kind("rescaled", {"type": "SGD", "lr": 0.1, "momentum": 0.9}, SGDRule(0.1, 1.0, 0.9), True),
    Kind(
        "adamw",
        {"type": "AdamW", "lr": 1e-3, "betas": (0.9, 0.99)},
        AdamRule(1e-3, 1.0, 0.9, 0.99),
    ),
)
"""They take turns."""


def generate_runs(folder: Path, runs: int, layers: int, samples: int, interval: int) -> None:
    """Write so many work dirs below a folder.

    Args:
        folder: Where to; made if it is not there.
        runs: Number of runs; each has a seed and so noise of its own.
        layers: Scale-invariant layers per run.
        samples: Samples per layer.
        interval: Optimizer steps from one sample to the next.
    """
    for number in range(runs):
        kind = KINDS[number % len(KINDS)]
        work_dir = folder / f"{kind.name}-seed{number // len(KINDS)}"
        _write_run(work_dir / TIMESTAMP, kind, number, layers, np.arange(samples) * interval)


def _write_run(launch: Path, kind: Kind, seed: int, layers: int, steps: np.ndarray) -> None:
    rule = settled_rule(kind, steps)
    writer = begin_run(launch, kind, seed, layers, steps)
    columns = samples_of(rule, kind.rescaled, layers, steps, np.random.default_rng(seed))
    for part in np.array_split(np.arange(len(steps) * layers), PARTS):
        writer.append({name: values[part] for name, values in columns.items()})
        writer.flush()
    end_run(launch, steps)


def settled_rule(kind: Kind, steps: np.ndarray) -> UpdateRule:
    """Return a kind's rule with the weight decay that lets it settle before its drop."""
    # the rule's relaxation time goes as 1/λ
    decay = relaxation_time(kind.rule) * RELAXATIONS / (DROP_AT * _total(steps))
    return kind.rule.at(kind.rule.lr, decay)


def begin_run(launch: Path, kind: Kind, seed: int, layers: int, steps: np.ndarray) -> RecordWriter:
    """Write what a launch has beside its samples; return what writes those.

    It writes a part where it is told to flush, and only there.
    """
    rule, total = settled_rule(kind, steps), _total(steps)
    (launch / "vis_data").mkdir(parents=True)
    (launch / "vis_data" / "config.py").write_text(_config(kind, rule.weight_decay, seed, total))
    lines = [{"lr": rule.lr, "loss": 2 - i / 40, "iter": total * i // 20} for i in range(1, 21)]
    lines = [{**line, "step": line["iter"]} for line in lines]
    lines.append({"accuracy/top1": 75 + seed % 7 / 10, "step": total})
    (launch / "vis_data" / "scalars.json").write_text("".join(json.dumps(x) + "\n" for x in lines))
    writer = RecordWriter(launch, seconds_between_parts=float("inf"))
    names = [f"layer{i}.weight" for i in range(layers)]
    writer.write_run(
        {"interval": int(steps[1]), "first_iteration": 0, "max_iterations": total, "seed": seed}
        | {"world_size": 1, "weights": [_weight(name, rule) for name in names]}
    )
    return writer


def end_run(launch: Path, steps: np.ndarray) -> None:
    """Note that a launch has finished."""
    write_state(launch, RunState("finished", _total(steps), _total(steps)))


def _total(steps: np.ndarray) -> int:
    return int(steps[-1]) + 1


def _config(kind: Kind, decay: float, seed: int, total: int) -> str:
    optimizer = {**kind.optimizer, "weight_decay": decay}
    hooks = [{"type": "SMDHook"}] + [{"type": "EquilibriumRescaleHook"}] * kind.rescaled
    return "\n".join(
        [
            "default_scope = 'mmpretrain'",
            "model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=50))",
            f"optim_wrapper = dict(type='OptimWrapper', optimizer={optimizer!r})",
            "train_dataloader = dict(batch_size=32, dataset=dict(type='ImageNet',",
            "    data_root='data/imagenet'))",
            f"train_cfg = dict(by_epoch=False, max_iters={total})",
            f"custom_hooks = {hooks!r}",
            f"randomness = dict(seed={seed})",
            "",
        ]
    )


def _weight(name: str, rule: UpdateRule) -> dict[str, Any]:
    return {
        "parameter": name,
        "shape": [64, 64, 3, 3],
        "measured": True,
        "optimizer": "",
        "first_step": 0,
        "rule": rule.to_json(),
        "no_prediction": "",
        "rounding_angle": 1e-8,
        "scale_invariant": True,
        "statistic": 1e-9,
        "batches": 8,
        "reason": "normalized by bn",
        "norms": ["bn"],
        "changes": [[0, True]],
    }


def samples_of(
    rule: UpdateRule, rescaled: bool, layers: int, steps: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return samples by step, and by layer within a step, as the hook writes them."""
    shape = (len(steps), layers)
    dropped = np.broadcast_to((steps >= DROP_AT * steps[-1])[:, None], shape)
    lr = np.where(dropped, rule.lr / DROP, rule.lr)
    rescale = np.where(dropped & rescaled, rescale_factor(rule, DROP), 1.0)
    decay = np.full(shape, rule.weight_decay)
    moment = rng.lognormal(0, SCATTER, shape) * rng.lognormal(0, 1, layers)
    start = 2 * np.array([equilibrium_norm(rule, size) for size in moment.mean(axis=0)])
    moments = StepMoments(gradient=moment, alignment=0 * moment, direction=moment)
    law = second_moment_trajectory(rule, steps, lr, decay, moments, start, rescale)
    norm, angle = law.weight_norm, law.angular_update
    # along the weight a step changes little: the next sample's norm but for rescaling
    grown = np.diff(norm / rescale, axis=0, append=(norm / rescale)[-1:]) * rescale
    after = norm + grown / np.diff(steps, append=steps[-1] + 1)[:, None]
    radial = after * np.cos(angle) - norm
    columns = {
        "step": np.repeat(steps, layers),
        "iteration": np.repeat(steps, layers),
        "weight": np.tile(np.arange(layers), len(steps)),
        "unit": np.full(lr.size, -1),
        "lr": lr,
        "weight_decay": decay,
        "rescale": rescale,
        "angle_factor": np.ones(shape),
        "weight_norm": norm,
        "gradient_norm": np.sqrt(moment) / norm,
        "gradient_momentum_dot": np.zeros(shape),
        "radial_cosine": rng.normal(0, 1e-4, shape),
        "update_norm": np.hypot(radial, after * np.sin(angle)),
        "radial_update": radial,
        "angular_update": angle,
    }
    return {name: np.ravel(values) for name, values in columns.items()}


def sample_files(folder: Path) -> Sequence[Path]:
    """Return all files of samples below a folder."""
    return sorted(folder.glob("*/*/smd/samples-*.parquet"))
