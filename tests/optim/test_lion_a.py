"""LionA: the length of its steps, and how early ones are scaled."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from smd_hooks.optim import LionA
from tests.optim.cases import NO_WARMUP

LR = 0.01


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.98])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", [(7,), (6, 5), (4, 3, 3, 3)])
def test_a_step_has_its_norm_from_the_first_on(
    beta: float, nesterov: bool, shape: tuple[int, ...]
) -> None:
    """‖ηu‖ = η·√((1−β)/(1+β))·√C, whatever the gradients."""
    weight = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = LionA([weight], LR, beta=beta, nesterov=nesterov)
    wanted = LR * math.sqrt((1 - beta) / (1 + beta) * weight.numel())
    for t in range(5):
        before = weight.detach().clone()
        weight.grad = 10.0**-t * torch.randn(shape, dtype=torch.float64)
        optimizer.step()
        assert float((weight - before).detach().norm()) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_against_a_loop_in_numpy(nesterov: bool) -> None:
    rng = np.random.default_rng(0)
    w, m, beta, decay = rng.normal(size=(6, 5)), np.zeros((6, 5)), 0.8, 0.3
    weight = nn.Parameter(torch.from_numpy(w.copy()))
    optimizer = LionA([weight], LR, beta=beta, weight_decay=decay, nesterov=nesterov)
    for _ in range(50):
        g = rng.normal(size=w.shape)
        weight.grad = torch.from_numpy(g)
        optimizer.step()
        m = beta * m + (1 - beta) * g
        z = beta * m + (1 - beta) * g if nesterov else m
        w = (1 - LR * decay) * w - LR * math.sqrt((1 - beta) / (1 + beta)) * np.sign(z)
    assert np.allclose(weight.detach().numpy(), w, rtol=0, atol=1e-13)


def step_lengths(steps: int, nesterov: bool, corrected: bool) -> list[float]:
    weight = nn.Parameter(torch.zeros(8, 9, dtype=torch.float64))
    optimizer = LionA([weight], LR, beta=0.98, nesterov=nesterov, inverse_bias_correction=corrected)
    lengths = []
    for _ in range(steps):
        before = weight.detach().clone()
        weight.grad = torch.randn(8, 9, dtype=torch.float64)
        optimizer.step()
        lengths.append(float((weight - before).detach().norm()))
    return lengths


@pytest.mark.parametrize(
    ("nesterov", "wanted"),
    [
        (False, {1: 0.199, 10: 0.577, 50: 0.931, 100: 0.991}),
        (True, {1: 0.380, 10: 0.636, 50: 0.939, 100: 0.992}),
    ],
)
def test_the_inverse_bias_correction_makes_early_steps_small(
    nesterov: bool, wanted: dict[int, float]
) -> None:
    corrected, plain = (step_lengths(100, nesterov, flag) for flag in (True, False))
    for t, factor in wanted.items():
        assert corrected[t - 1] / plain[t - 1] == pytest.approx(factor, abs=5e-4), t


def test_with_the_correction_early_gradients_contribute_as_later_ones_do() -> None:
    """Without it, the mean of signs owes more to the first gradients than to any later."""

    def contribution(corrected: bool) -> np.ndarray:
        """How far the end lies along each of the gradients, over all elements."""
        generator = torch.Generator().manual_seed(0)
        weight = nn.Parameter(torch.zeros(400_000))
        optimizer = LionA([weight], LR, beta=0.9, inverse_bias_correction=corrected)
        given = torch.randn(60, weight.numel(), generator=generator)
        for gradient in given:
            weight.grad = gradient
            optimizer.step()
        along = -(given @ weight.detach()) / weight.numel() / LR
        return along.double().numpy()

    corrected, plain = contribution(True), contribution(False)
    usual = corrected[20:30].mean()
    assert np.allclose(corrected[:20] / usual, 1, atol=0.08)
    assert plain[0] / usual > 1.3


def test_the_recipe_without_warmup_is_a_choice() -> None:
    defaults = LionA([nn.Parameter(torch.zeros(2))], LR).defaults
    assert all(defaults[name] != value for name, value in NO_WARMUP.items())


def test_coordinates_without_a_gradient_stay() -> None:
    weight = nn.Parameter(torch.zeros(4))
    optimizer = LionA([weight], LR, beta=0.5)
    weight.grad = torch.tensor([1.0, 0.0, -1e-30, float("nan")])
    optimizer.step()
    scale = LR / math.sqrt(3)
    assert weight.tolist() == pytest.approx([-scale, 0.0, scale, 0.0])
