"""A network with BatchNorm in training, seen by the probe: angles and norms are as set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from smd_hooks import StepProbe
from smd_hooks.optim import LionAR, RotationalAdamW, RotationalLion, RotationalSGD
from tests.optim.cases import Case, name_of, norms
from tests.optim.digits import network, train

SETTINGS = {
    LionAR: (2e-3, 0.1),
    RotationalSGD: (0.1, 1e-2),
    RotationalAdamW: (2e-3, 0.1),
    RotationalLion: (1e-3, 0.1),
}
"""lr and weight decay that these patterns are learned with."""
SCALE_INVARIANT = ["0.weight", "4.weight", "9.weight"]
STEPS, SKIPPED, LONG = 300, 100, 900


def observe(
    build: Callable[[list[nn.Parameter]], torch.optim.Optimizer], per_neuron: bool, steps: int
) -> tuple[pd.DataFrame, float, list[float]]:
    """Train; return samples, the largest relative change of a unit's norm, and losses."""
    model = network()
    optimizer = build(list(model.parameters()))
    weights = {name: w for name, w in model.named_parameters() if w.ndim > 1}
    start = {name: norms(w, per_neuron) for name, w in weights.items()}
    probe = StepProbe(optimizer, model.named_parameters())
    losses = train(model, optimizer, steps)
    off = [(norms(w, per_neuron) / start[name] - 1).abs().max() for name, w in weights.items()]
    return probe.to_frame(), float(max(off)), losses


def rms_over(angle: float, samples: pd.DataFrame) -> dict[str, float]:
    """RMS angle of each weight after a start-up, over the one that was set."""
    late = samples[samples["step"] >= SKIPPED]
    return {
        name: math.sqrt((rows["angular_update"] ** 2).mean()) / angle
        for name, rows in late.groupby("parameter")
    }


def built(case: Case) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    lr, decay = SETTINGS[case.kind]
    return lambda parameters: case.build(parameters, lr=lr, weight_decay=decay)


def angle_of(kind: Any) -> float:
    lr, decay = SETTINGS[kind]
    optimizer = kind([nn.Parameter(torch.ones(2, 2))], lr, weight_decay=decay)
    return optimizer._numbers(optimizer.param_groups[0])["angle"]


@pytest.mark.parametrize("per_neuron", [True, False])
def test_lion_ar_turns_every_weight_by_its_angle_at_every_step(per_neuron: bool) -> None:
    samples, off, losses = observe(
        built(Case(LionAR, {"per_neuron": per_neuron})), per_neuron, steps=60
    )
    assert len(samples) == 4 * 60
    angle = math.sqrt(2 * 2e-3 * 0.1 * 0.1 / 1.9)
    assert samples["angular_update"].to_numpy() == pytest.approx(angle, rel=1e-3)
    assert off <= 1e-6
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.slow
@pytest.mark.parametrize("per_neuron", [True, False])
@pytest.mark.parametrize("kind", [RotationalSGD, RotationalAdamW, RotationalLion])
def test_rotational_optimizers_turn_by_their_angle_on_average(kind: Any, per_neuron: bool) -> None:
    case = Case(kind, {"per_neuron": per_neuron})
    samples, off, losses = observe(built(case), per_neuron, STEPS)
    found = rms_over(angle_of(kind), samples)
    print(name_of(case), found, off, losses[-1])
    for name in SCALE_INVARIANT:
        assert found[name] == pytest.approx(1, abs=0.03), name
    assert off <= 1e-6
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("per_neuron", [True, False])
@pytest.mark.parametrize("kind", [RotationalSGD, RotationalAdamW])
def test_so_does_the_ordinary_head_once_large_first_updates_are_forgotten(
    kind: Any, per_neuron: bool
) -> None:
    samples, *_ = observe(built(Case(kind, {"per_neuron": per_neuron})), per_neuron, LONG)
    found = rms_over(angle_of(kind), samples)
    assert set(found) > set(SCALE_INVARIANT)
    for name, ratio in found.items():
        assert ratio == pytest.approx(1, abs=0.03), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RotationalSGD, RotationalAdamW])
def test_control_a_slow_running_mean_is_percents_off(kind: Any) -> None:
    case = Case(kind, {"update_norm_decay": 0.99})
    samples, off, _ = observe(built(case), True, STEPS)
    found = rms_over(angle_of(kind), samples)
    print(name_of(case), found)
    assert min(found[name] for name in SCALE_INVARIANT) < 0.92
    assert off <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda w: torch.optim.SGD(w, 0.1, momentum=0.9, weight_decay=1e-2), RotationalSGD),
        (lambda w: torch.optim.AdamW(w, 2e-3, weight_decay=0.1), RotationalAdamW),
    ],
    ids=["SGD", "AdamW"],
)
def test_control_ordinary_optimizers_do_neither(build: Any, kind: Any) -> None:
    samples, off, _ = observe(build, False, STEPS)
    found = rms_over(angle_of(kind), samples)
    assert max(abs(found[name] - 1) for name in found) > 0.1
    assert off > 0.1
