"""LionAR turns by exactly what it is asked, as the probe sees it; how far it gets; why so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smd_hooks import StepProbe
from smd_hooks.optim import LionAR
from tests.optim.cases import Gradients, norms

LR, DECAY = 2e-3, 0.1
REFERENCE: dict[tuple[float, str, bool], tuple[float, float]] = {
    (0.9, "adamw", False): (0.004588, 0.934),
    (0.9, "net", False): (0.005751, 0.898),
    (0.9, "net", True): (0.006662, 0.901),
    (0.98, "adamw", False): (0.002010, 0.940),
    (0.98, "net", False): (0.002519, 0.9075),
    (0.98, "net", True): (0.002615, 0.909),
}
"""β, matching, Nesterov: radians per step, and the cosine to the start after 500 steps."""


def options(key: tuple[float, str, bool]) -> dict[str, Any]:
    return dict(zip(("beta", "matching", "nesterov"), key, strict=True))


@pytest.mark.parametrize("per_neuron", [True, False])
@pytest.mark.parametrize("key", REFERENCE, ids=str)
def test_every_step_turns_by_the_angle_asked_for(
    key: tuple[float, str, bool], per_neuron: bool
) -> None:
    weight = nn.Parameter(torch.randn(64, 27))
    start = norms(weight, per_neuron)
    optimizer = LionAR([weight], LR, weight_decay=DECAY, per_neuron=per_neuron, **options(key))
    probe = StepProbe(optimizer, [("w", weight)], per_filter=per_neuron)
    gradients = Gradients()
    for _ in range(40):
        gradients.give([weight])
        optimizer.step()
        assert (norms(weight, per_neuron) / start - 1).abs().max() <= 1e-6
    measured = probe.to_frame()
    assert len(measured) == 40 * (65 if per_neuron else 1)
    assert measured["angular_update"].to_numpy() == pytest.approx(REFERENCE[key][0], rel=1e-3)


def test_how_far_a_weight_gets_in_many_steps() -> None:
    """Signs of a running mean are alike from step to step: their turns add up."""
    weights, optimizers = [], []
    for key in REFERENCE:
        torch.manual_seed(0)
        weights.append(nn.Parameter(torch.randn(16, 4096)))
        optimizers.append(LionAR(weights[-1:], LR, weight_decay=DECAY, **options(key)))
    start, generator = weights[0].detach().clone(), torch.Generator().manual_seed(1)
    for _ in range(500):
        gradient = torch.randn(start.shape, generator=generator)
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = gradient
            optimizer.step()
    for weight, (key, (angle, wanted)) in zip(weights, REFERENCE.items(), strict=True):
        w = weight.detach()
        cosine = float(nn.functional.cosine_similarity(w.flatten(), start.flatten(), 0))
        # as much as 65,536 elements tell
        assert cosine == pytest.approx(wanted, abs=2.5e-3), key
        assert cosine == pytest.approx(arcsine_law(angle, key[0], key[2]), abs=1.5e-3), key
        assert (norms(w, True) / norms(start, True) - 1).abs().max() <= 1e-6


def arcsine_law(angle: float, beta: float, nesterov: bool, steps: int = 500) -> float:
    """Cosine to the start if signs are those of Gaussians: they correlate as 2/π·arcsin ρ."""
    share = (1 - beta) * beta ** np.arange(steps)
    if nesterov:
        share = beta * share
        share[0] += 1 - beta
    arguments = np.array([np.r_[share[t::-1], np.zeros(steps - 1 - t)] for t in range(steps)])
    arguments /= np.linalg.norm(arguments, axis=1, keepdims=True)
    alike = 2 / math.pi * np.arcsin(np.clip(arguments @ arguments.T, -1, 1))
    return math.exp(-(angle**2) * alike.sum() / 2)


@pytest.mark.parametrize(("fan_in", "wanted"), [(27, 0.98), (64, 0.992), (384, 0.9987)])
def test_control_with_the_radial_part_the_angle_depends_on_the_fan_in(
    fan_in: int, wanted: float
) -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(2000, fan_in))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    m, angles = np.zeros_like(w), []
    for t in range(30):
        m = 0.9 * m + 0.1 * rng.normal(size=w.shape)
        after = w - 0.004588 * np.sign(m) / math.sqrt(fan_in)
        after /= np.linalg.norm(after, axis=1, keepdims=True)
        if t >= 10:
            angles.append(2 * np.arcsin(np.linalg.norm(after - w, axis=1) / 2))
        w = after
    assert np.mean(angles) / 0.004588 == pytest.approx(wanted, abs=2e-3)


def turned(steps: int = 1, weight: Tensor | None = None, **settings: Any) -> list[float]:
    """Return the angle of each of a few steps, as the probe measures it."""
    w = nn.Parameter(torch.randn(8, 30) if weight is None else weight)
    optimizer = LionAR([w], LR, **settings)
    probe = StepProbe(optimizer, [("w", w)])
    gradients = Gradients()
    for _ in range(steps):
        gradients.give([w])
        optimizer.step()
    return probe.to_frame()["angular_update"].tolist()


def test_a_direct_angle_needs_no_weight_decay() -> None:
    assert turned(3, angle=0.02) == pytest.approx([0.02] * 3, rel=1e-5)
    assert turned(3, angle=0.02, weight_decay=0.5) == pytest.approx([0.02] * 3, rel=1e-5)
    assert turned(3, angle=1.2) == pytest.approx([1.2] * 3, rel=1e-5)


@pytest.mark.parametrize(
    ("nesterov", "wanted"),
    [
        (False, {1: 0.199, 10: 0.577, 50: 0.931, 100: 0.991}),
        (True, {1: 0.380, 10: 0.636, 50: 0.939, 100: 0.992}),
    ],
)
def test_the_inverse_bias_correction_makes_early_angles_small(
    nesterov: bool, wanted: dict[int, float]
) -> None:
    angles = turned(100, beta=0.98, angle=0.01, nesterov=nesterov, inverse_bias_correction=True)
    for t, factor in wanted.items():
        assert angles[t - 1] / 0.01 == pytest.approx(factor, abs=6e-4), t
    plain = turned(3, beta=0.98, angle=0.01, nesterov=nesterov)
    assert plain == pytest.approx([0.01] * 3, rel=1e-4)


def test_the_plane_of_the_turn_is_that_of_weight_and_sign() -> None:
    """One step from a fresh state, row by row in numpy."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 9, dtype=torch.float64))
    optimizer = LionAR([weight], LR, weight_decay=DECAY)
    w = weight.detach().clone().numpy()
    weight.grad = torch.randn(5, 9, dtype=torch.float64)
    d = np.sign(weight.grad.numpy())
    optimizer.step()
    angle = math.sqrt(2 * LR * DECAY * 0.1 / 1.9)
    for row, (before, direction) in enumerate(zip(w, d, strict=True)):
        radius = np.linalg.norm(before)
        direction = direction - before * (before @ direction) / radius**2
        wanted = math.cos(angle) * before - radius * math.sin(angle) * (
            direction / np.linalg.norm(direction)
        )
        assert np.allclose(weight.detach().numpy()[row], wanted, rtol=0, atol=1e-6)


def test_what_is_not_rotational_takes_sign_steps_without_decay() -> None:
    gain = nn.Parameter(torch.ones(4))
    optimizer = LionAR([gain], LR, weight_decay=DECAY)
    gain.grad = torch.tensor([1.0, -2.0, 3.0, 0.0])
    optimizer.step()
    step = LR * math.sqrt(0.1 / 1.9)
    assert gain.tolist() == pytest.approx([1 - step, 1 + step, 1 - step, 1.0], rel=1e-6)
