"""Which angle a learning rate schedule asks for, at each step of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.optim.scheduler import CosineAnnealingLR as MMCosine
from mmengine.optim.scheduler import LinearLR as MMLinear
from mmengine.optim.scheduler import OneCycleLR as MMOneCycle
from torch import Tensor, nn
from torch.optim import lr_scheduler as torch_lr

from smd_hooks import StepProbe
from smd_hooks.optim import LionAR, RotationalAdamW, RotationalLion, RotationalSGD
from tests.optim.cases import TURNING, Case, Gradients, made, name_of

STEPS, WARMUP, LR, DECAY = 40, 10, 2e-3, 0.1
Schedule = Callable[[torch.optim.Optimizer], Callable[[], Any]]
"""From an optimizer to what is called after each step."""


def warmup_cosine(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    warmup = torch_lr.LinearLR(optimizer, 0.01, total_iters=WARMUP)
    cosine = torch_lr.CosineAnnealingLR(optimizer, STEPS - WARMUP)
    return torch_lr.SequentialLR(optimizer, [warmup, cosine], [WARMUP]).step


def one_cycle(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    return torch_lr.OneCycleLR(optimizer, LR, STEPS + 1, cycle_momentum=False).step


def mm_warmup_cosine(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    parts = [
        MMLinear(optimizer, start_factor=0.01, by_epoch=False, end=WARMUP),
        MMCosine(optimizer, T_max=STEPS - WARMUP, by_epoch=False, begin=WARMUP, end=STEPS),
    ]
    return lambda: [part.step() for part in parts]


def mm_one_cycle(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    return MMOneCycle(optimizer, eta_max=LR, total_steps=STEPS + 1, by_epoch=False).step


def by_hand(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """As nanoGPT does it: the loop sets lr before each step."""
    done = 0

    def set_next() -> None:
        nonlocal done
        done += 1
        rate = done / WARMUP if done <= WARMUP else 0.5 + 0.5 * math.cos(done / STEPS * 3)
        for group in optimizer.param_groups:
            group["lr"] = LR * rate

    set_next()
    return set_next


SCHEDULES: dict[str, Schedule] = {
    "warmup and cosine": warmup_cosine,
    "one cycle": one_cycle,
    "MMEngine, warmup and cosine": mm_warmup_cosine,
    "MMEngine, one cycle": mm_one_cycle,
    "by hand": by_hand,
}


def angles(
    planned: Schedule, lr: Any = LR, kind: Any = LionAR, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the learning rate and the angle of each step, as they were."""
    weight = made(8, 30)
    optimizer = Case(kind, options).build([weight], lr=lr, weight_decay=DECAY)
    probe = StepProbe(optimizer, [("w", weight)])
    move, gradients, rates = planned(optimizer), Gradients(), []
    for _ in range(STEPS):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        gradients.give([weight])
        optimizer.step()
        move()
    return np.array(rates), probe.to_frame()["angular_update"].to_numpy()


def peak_angle(lr: float = LR) -> float:
    return math.sqrt(2 * lr * DECAY * 0.1 / 1.9)


@pytest.mark.parametrize("law", ["linear", "sqrt"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_angle_follows_lr_or_its_root_at_every_step(name: str, law: str) -> None:
    rates, found = angles(SCHEDULES[name], schedule=law)
    assert rates.max() == pytest.approx(LR, rel=5e-3)
    assert rates.min() < 0.15 * LR
    wanted = peak_angle() * (rates / LR) ** (1.0 if law == "linear" else 0.5)
    assert np.allclose(found, wanted, rtol=1e-3, atol=2e-8)


@pytest.mark.parametrize("law", ["linear", "sqrt"])
def test_a_direct_angle_is_that_of_the_peak(law: str) -> None:
    rates, found = angles(warmup_cosine, schedule=law, angle=0.01)
    wanted = 0.01 * (rates / LR) ** (1.0 if law == "linear" else 0.5)
    assert np.allclose(found, wanted, rtol=1e-3, atol=2e-8)


def test_control_the_laws_differ() -> None:
    found = [angles(warmup_cosine, schedule=law)[1] for law in ("linear", "sqrt")]
    assert np.allclose(found[0][WARMUP], found[1][WARMUP], rtol=1e-3)
    assert found[1][1] > 2 * found[0][1]


@pytest.mark.parametrize("law", ["linear", "sqrt"])
@pytest.mark.parametrize("name", ["warmup and cosine", "one cycle"])
def test_a_tensor_lr_follows_its_schedule_alike(name: str, law: str) -> None:
    plain = angles(SCHEDULES[name], schedule=law)
    tensor = angles(SCHEDULES[name], lr=torch.tensor(LR, dtype=torch.float64), schedule=law)
    assert np.allclose(tensor, plain, rtol=1e-6, atol=2e-8)


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (LionAR, "linear"),
        (RotationalSGD, "sqrt"),
        (RotationalAdamW, "sqrt"),
        (RotationalLion, "sqrt"),
    ],
)
def test_the_default_law(kind: Any, law: str) -> None:
    weights = [made(8, 30), made(8, 30)]
    (one, other) = (
        kind([weights[0]], LR, weight_decay=DECAY),
        kind([weights[1]], LR, weight_decay=DECAY, schedule=law),
    )
    gradients = Gradients()
    for _ in range(3):
        gradients.give(weights[:1], weights[1:])
        for optimizer in (one, other):
            optimizer.param_groups[0]["lr"] = LR / 4
            optimizer.step()
    assert torch.equal(*weights)


@pytest.mark.filterwarnings("ignore:.*rounding turns them:UserWarning")
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", TURNING, ids=name_of)
def test_at_lr_0_weights_stay_to_the_bit(case: Case, dtype: torch.dtype, fast: bool) -> None:
    weight = made(8, 30, dtype=dtype)
    optimizer = case.build([weight])
    gradients = Gradients()
    for _ in range(3):
        gradients.give([weight])
        optimizer.step()
    before = weight.detach().clone()
    optimizer.param_groups[0]["lr"] = 0.0
    gradients.give([weight])
    optimizer.step() if fast else optimizer.reference_step()
    assert torch.equal(weight, before)


def test_a_resumed_schedule_keeps_its_peak() -> None:
    """The peak is in the state dict, not what lr happened to be."""
    weight, other = made(8, 30), made(8, 30)
    optimizer = LionAR([weight], LR, weight_decay=DECAY)
    optimizer.param_groups[0]["lr"] = LR / 10
    weight.grad = torch.ones(8, 30)
    optimizer.step()
    resumed = LionAR([other], LR / 10, weight_decay=DECAY)
    resumed.load_state_dict(optimizer.state_dict())
    with torch.no_grad():
        other.copy_(weight)
    probe = StepProbe(resumed, [("w", other)])
    other.grad = torch.randn(8, 30)
    resumed.step()
    found = probe.to_frame()["angular_update"].iloc[0]
    assert found == pytest.approx(peak_angle() / 10, rel=1e-3)


def test_groups_have_their_own_rates_and_peaks() -> None:
    weights = [made(8, 30), made(8, 30, seed=1)]
    groups: list[dict[str, Any]] = [
        {"params": weights[:1]},
        {"params": weights[1:], "lr": 4 * LR, "weight_decay": 2 * DECAY, "schedule": "sqrt"},
    ]
    optimizer = LionAR(groups, LR, weight_decay=DECAY)
    schedule = torch_lr.LambdaLR(optimizer, lambda t: 0.25)
    probe = StepProbe(optimizer, [("a", weights[0]), ("b", weights[1])])
    Gradients().give(weights)
    optimizer.step()
    schedule.step()
    found = probe.to_frame().set_index("parameter")["angular_update"]
    assert found["a"] == pytest.approx(peak_angle() / 4, rel=1e-3)
    assert found["b"] == pytest.approx(peak_angle() * math.sqrt(8) / 2, rel=1e-3)


def test_ordinary_parameters_follow_the_rate_itself() -> None:
    gain = nn.Parameter(torch.zeros(4))
    optimizer = LionAR([gain], LR, weight_decay=DECAY)
    for share in (1.0, 0.25):
        optimizer.param_groups[0]["lr"] = share * LR
        before: Tensor = gain.detach().clone()
        gain.grad = torch.ones(4)
        optimizer.step()
        step = share * LR * math.sqrt(0.1 / 1.9)
        assert (before - gain).tolist() == pytest.approx([step] * 4, rel=1e-5)
