"""Builds work dirs as MMEngine and our hook leave them, from numbers that are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smd_hooks.records import RecordWriter
from smd_hooks.theory import (
    RotationalRule,
    SGDRule,
    UpdateRule,
    equilibrium_angle,
    equilibrium_norm,
    relaxation_ratio,
    step_exponent,
)

RULE = SGDRule(0.1, 0.005, 0.9)
CONFIG = """
default_scope = 'mmengine'
model = dict(type='TorchvisionClassifier', arch='resnet50')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(
    type='SGD', lr=0.1, momentum=0.9, weight_decay=0.005))
train_dataloader = dict(batch_size=32, dataset=dict(
    type='ImageFolderDataset', data_root='data/imagenette'))
train_cfg = dict(by_epoch=False, max_iters=100)
randomness = dict(seed=7)
"""


def weight(parameter: str, invariant: bool | None = True, **changes: Any) -> dict[str, Any]:
    return {
        "parameter": parameter,
        "measured": True,
        "rule": RULE.to_json(),
        "no_prediction": "",
        "shape": [8, 4, 3, 3],
        "scale_invariant": invariant,
        "statistic": 1e-9,
        "batches": 8,
        "reason": "normalized by bn" if invariant else "reaches the loss before any norm",
        "norms": [],
        **changes,
    }


def perfect_samples(
    steps: Sequence[int],
    rates: np.ndarray,
    weights: int = 1,
    ratio: float = 1.0,
    rule: UpdateRule = RULE,
    decay: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Weights in the state that theory says, from equilibrium at the first step on.

    Their unit gradients, or steps where these are normalized, have norm 1. Weight decay is
    the rule's, if not given at each sample.
    """
    n = len(rates)
    decay = np.full(n, rule.weight_decay) if decay is None else decay
    relative = relaxation_ratio(rule, steps, rates, decay) * ratio
    ends = [rule.at(*pair) for pair in zip(rates, decay, strict=True)]
    angle = relative * np.array([equilibrium_angle(end) for end in ends])
    radius = np.array([equilibrium_norm(end, 1.0) for end in ends])
    norm = radius * relative ** (-1 / (1 + step_exponent(rule)))
    after = norm.copy()
    after[:-1] += np.diff(norm) / np.diff(steps)
    jump = np.flatnonzero(np.diff(rates) + np.diff(decay))  # where the weights do not jump
    after[jump] = norm[jump + 1]
    return _samples(steps, rates, decay, norm, after, angle, weights)


TURNED = RotationalRule(0.1, 0.005, constant=0.5, peak_lr=0.1)


def turned_samples(
    steps: Sequence[int], rates: np.ndarray, rule: RotationalRule = TURNED, weights: int = 1
) -> dict[str, np.ndarray]:
    """Weights of norm 3 that turn by the set angle; gradients of any size, here 1."""
    decay, norm = np.full(len(rates), rule.weight_decay), np.full(len(rates), 3.0)
    angle = np.array([rule.at(lr, rule.weight_decay).angular_update for lr in rates])
    return _samples(steps, rates, decay, norm, norm, angle, weights)


def _samples(
    steps: Sequence[int],
    rates: np.ndarray,
    decay: np.ndarray,
    norm: np.ndarray,
    after: np.ndarray,
    angle: np.ndarray,
    weights: int,
) -> dict[str, np.ndarray]:
    n = len(rates)
    one = {
        "step": np.asarray(steps),
        "iteration": np.asarray(steps),
        "unit": np.full(n, -1, np.int32),
        "lr": rates,
        "weight_decay": decay,
        "rescale": np.ones(n),
        "angle_factor": np.ones(n),
        "weight_norm": norm,
        "gradient_norm": 1 / norm,
        "gradient_momentum_dot": np.zeros(n),
        "radial_cosine": np.zeros(n),
        "update_norm": np.sqrt(norm**2 + after**2 - 2 * norm * after * np.cos(angle)),
        "radial_update": after * np.cos(angle) - norm,
        "angular_update": angle,
    }
    result = {name: np.repeat(values, weights) for name, values in one.items()}
    result["weight"] = np.tile(np.arange(weights), n).astype(np.int16)
    return result


def launch(
    work_dir: Path,
    timestamp: str,
    lines: Sequence[dict[str, Any]] = (),
    samples: dict[str, np.ndarray] | None = None,
    run: dict[str, Any] | None = None,
    config: str = CONFIG,
) -> Path:
    folder = work_dir / timestamp
    (folder / "vis_data").mkdir(parents=True)
    (folder / "vis_data" / "config.py").write_text(config)
    if lines:
        (folder / "vis_data" / "scalars.json").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )
    if run is not None:
        writer = RecordWriter(folder)
        writer.write_run(run)
        if samples is not None:
            writer.append(samples)
        writer.flush()
    return folder
