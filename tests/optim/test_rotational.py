"""RotationalSGD, AdamW and Lion turn by their equilibrium's angle on average, at constant norms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from smd_hooks import StepProbe
from smd_hooks.optim import RotationalAdamW, RotationalLion, RotationalSGD
from smd_hooks.theory import AdamRule, LionRule, SGDRule, equilibrium_angle
from tests.optim.cases import Case, Gradients, name_of, norms

SETTINGS = {RotationalSGD: (0.1, 1e-3), RotationalAdamW: (1e-3, 0.1), RotationalLion: (1e-3, 0.1)}
"""lr and weight decay, of each."""
WANTED = {
    RotationalSGD: math.sqrt(2 * 1e-4 / 1.9),
    RotationalAdamW: math.sqrt(2 * 1e-4 * 0.1 / 1.9),
    RotationalLion: equilibrium_angle(LionRule(1e-3, 0.1, 0.9, 0.99)),
}
CASES = [
    Case(kind, options)
    for kind in SETTINGS
    for options in (
        {},
        {"per_neuron": False},
        {"zero_mean": False},
        {"per_neuron": False, "zero_mean": False},
    )
]


def walk(case: Case, steps: int = 250, skipped: int = 50, scale: Any = None) -> np.ndarray:
    """Return the angles of a weight under white gradients; its norms must not change."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(24, 3, 5, 5) + 0.2)
    lr, decay = SETTINGS[case.kind]
    optimizer = case.build([weight], lr=lr, weight_decay=decay)
    start = norms(weight, case.per_neuron)
    probe = StepProbe(optimizer, [("w", weight)])
    gradients = Gradients()
    for t in range(steps):
        gradients.give([weight])
        if scale is not None:
            weight.grad *= scale(t)
        optimizer.step()
        assert (norms(weight, case.per_neuron) / start - 1).abs().max() <= 1e-6
    if case.options.get("zero_mean", True):
        rows = weight.detach().double().reshape(24 if case.per_neuron else 1, -1)
        assert rows.mean(1).abs().max() < 1e-6
    return probe.to_frame()["angular_update"].to_numpy()[skipped:]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_rms_angle_is_that_of_equilibrium_under_white_gradients(case: Case) -> None:
    angles = walk(case)
    assert math.sqrt(np.mean(angles**2)) == pytest.approx(WANTED[case.kind], rel=0.01)


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_the_size_of_gradients_does_not_matter(kind: Any) -> None:
    """But for Adam's ε, which is far below them."""
    small, large = (walk(Case(kind), 60, 10, lambda t, s=s: s) for s in (1e-3, 1e4))
    assert np.allclose(small, large, rtol=2e-4)


@pytest.mark.parametrize("decay", [0.9, 0.99])
def test_a_slow_running_mean_lags_behind_gradients_that_shrink(decay: float) -> None:
    """Why 0.9 is the default: gradients that fall by 7 % in 100 steps."""
    case = Case(RotationalSGD, {"update_norm_decay": decay})
    angles = walk(case, steps=500, skipped=300, scale=lambda t: math.exp(-t / 1300))
    off = math.sqrt(np.mean(angles**2)) / WANTED[RotationalSGD] - 1
    if decay == 0.9:
        assert abs(off) < 0.01
    else:
        assert off < -0.06


def test_the_default_angles_are_those_of_the_ordinary_rules() -> None:
    rules = {
        RotationalSGD: SGDRule(0.1, 1e-3, momentum=0.9),
        RotationalAdamW: AdamRule(1e-3, 0.1, 0.9, 0.999),
        RotationalLion: LionRule(1e-3, 0.1, 0.9, 0.99),
    }
    for kind, rule in rules.items():
        assert WANTED[kind] == pytest.approx(equilibrium_angle(rule), rel=2e-3)


@pytest.mark.parametrize("case", [Case(kind) for kind in SETTINGS], ids=name_of)
def test_control_another_momentum_turns_by_another_angle(case: Case) -> None:
    other = {"momentum": 0.5} if case.kind is RotationalSGD else {"betas": (0.5, 0.99)}
    angles = walk(Case(case.kind, other), steps=100)
    assert abs(math.sqrt(np.mean(angles**2)) / WANTED[case.kind] - 1) > 0.1


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_a_direct_angle_needs_no_weight_decay(kind: Any) -> None:
    weight = nn.Parameter(torch.randn(24, 75))
    optimizer = kind([weight], 0.1, angle=0.02)
    probe = StepProbe(optimizer, [("w", weight)])
    gradients = Gradients()
    for _ in range(200):
        gradients.give([weight])
        optimizer.step()
    angles = probe.to_frame()["angular_update"].to_numpy()[60:]
    assert math.sqrt(np.mean(angles**2)) == pytest.approx(0.02, rel=0.01)


def test_the_first_step_takes_means_off_and_keeps_norms() -> None:
    weight = nn.Parameter(torch.randn(6, 20, dtype=torch.float64) + 1.0)
    start = weight.detach().clone()
    optimizer = RotationalSGD([weight], 0.1, weight_decay=1e-12)
    weight.grad = torch.randn(6, 20, dtype=torch.float64)
    optimizer.step()
    centred = start - start.mean(1, keepdim=True)
    wanted = centred * start.norm(dim=1, keepdim=True) / centred.norm(dim=1, keepdim=True)
    assert torch.allclose(weight.detach(), wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(weight.detach(), start, rtol=0.1)


def test_what_is_not_rotational_decays_as_usual() -> None:
    """A gain under no gradient at all, for each of them."""
    for kind, (lr, decay) in SETTINGS.items():
        gain = nn.Parameter(torch.ones(4))
        make: Any = kind
        optimizer = make([gain], lr, weight_decay=decay)
        gain.grad = torch.zeros(4)
        optimizer.step()
        assert gain.tolist() == pytest.approx([1 - lr * decay] * 4, rel=1e-7)
