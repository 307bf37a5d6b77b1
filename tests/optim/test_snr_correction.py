"""The SNR correction on gradients whose signal and noise are known."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from smd_hooks import StepProbe
from smd_hooks.measure.probe import ANGLE_FACTOR_KEY
from smd_hooks.optim import LionA, LionAR, RotationalSGD, SNRCorrection
from smd_hooks.optim.snr_correction import AVERAGED, step_factor
from smd_hooks.optim.state import ANGLE_FACTOR
from smd_hooks.theory import snr_step_factor
from tests.measure.processes import on_two_processes

ROWS, FAN_IN = 40, 60
EXAMPLES, MICRO_BATCHES = 24, 4
ANGLE = 0.01


class Linear(nn.Module):
    """Its loss is linear in the weight: examples' gradients are what they are told to be."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(FAN_IN, ROWS, bias=False)

    def forward(self, gradients: Tensor) -> Tensor:
        """Mean loss of examples with these gradients, shape (examples, rows, fan-in)."""
        return (self.layer.weight * gradients.mean(0)).sum()


class Examples:
    """Gradients ḡ + nᵢ with ‖ḡ‖²/E‖nᵢ‖² = φ."""

    def __init__(self, snr: float) -> None:
        self._generator = torch.Generator().manual_seed(1)
        size = math.sqrt(snr)
        self._mean = size * torch.randn(ROWS, FAN_IN, generator=self._generator)

    def draw(self) -> Tensor:
        return self._mean + torch.randn(EXAMPLES, ROWS, FAN_IN, generator=self._generator)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, examples: Examples, steps: int
) -> None:
    for _ in range(steps):
        for part in examples.draw().chunk(MICRO_BATCHES):
            (model(part) / MICRO_BATCHES).backward()
        optimizer.step()
        optimizer.zero_grad()


def lion_ar(model: nn.Module, **options: Any) -> LionAR:
    return LionAR(model.parameters(), lr=0.1, angle=ANGLE, **options)


def corrected(model: nn.Module, optimizer: Any, **options: Any) -> SNRCorrection:
    return SNRCorrection(optimizer, model.named_parameters(), EXAMPLES, MICRO_BATCHES, **options)


@pytest.mark.parametrize("snr", [0.01, 0.1, 1.0, 10.0])
def test_the_angle_is_the_set_one_times_the_formula(snr: float) -> None:
    model = Linear()
    optimizer = lion_ar(model)
    correction = corrected(model, optimizer, interval=1)
    probe = StepProbe(optimizer, model.named_parameters())
    train(model, optimizer, Examples(snr), 12)
    factor = snr_step_factor(snr, EXAMPLES, FAN_IN)
    assert factor < 0.97
    assert correction.factors() == pytest.approx({"layer.weight": factor}, rel=0.03)
    columns = probe.drain()
    told = columns["angle_factor"]
    assert columns["angular_update"] == pytest.approx(ANGLE * told, rel=1e-4)
    # the first step, too, whose estimate is that of one step
    assert told == pytest.approx(factor, rel=0.06)


def test_control_without_it_the_angle_is_the_set_one() -> None:
    model = Linear()
    optimizer = lion_ar(model)
    probe = StepProbe(optimizer, model.named_parameters())
    train(model, optimizer, Examples(1.0), 3)
    columns = probe.drain()
    assert columns["angular_update"] == pytest.approx(ANGLE, rel=1e-4)
    assert (columns["angle_factor"] == 1).all()


def test_other_optimizers_that_turn_are_corrected_and_reference_steps_likewise() -> None:
    ends = []
    for slowly in (False, True):
        model = Linear()
        optimizer = RotationalSGD(model.parameters(), lr=0.1, angle=ANGLE)
        correction = corrected(model, optimizer)
        train(model, optimizer, Examples(1.0), 1)
        assert correction.factors()["layer.weight"] < 0.5
        model(Examples(0.5).draw()).backward()
        (optimizer.reference_step if slowly else optimizer.step)()
        ends.append(model.layer.weight.detach())
    assert torch.allclose(*ends, rtol=1e-6, atol=1e-7)


def test_between_measurements_the_factor_stays_and_old_ones_are_forgotten() -> None:
    model = Linear()
    optimizer = lion_ar(model)
    corrected(model, optimizer, interval=3)
    probe = StepProbe(optimizer, model.named_parameters())
    train(model, optimizer, Examples(10.0), 3)
    train(model, optimizer, Examples(0.01), 3 * AVERAGED)
    factors = probe.drain()["angle_factor"]
    assert (factors.reshape(-1, 3) == factors[::3, None]).all()
    assert len(set(factors)) == 1 + AVERAGED
    assert factors[0] < 0.5
    assert factors[-1] == pytest.approx(snr_step_factor(0.01, EXAMPLES, FAN_IN), rel=0.03)


def test_no_signal_and_no_noise_are_no_errors() -> None:
    assert step_factor([(-1.0, 1.0)], 480, 768) == 1
    assert step_factor([(0.0, 0.0)], 480, 768) == 1
    none = step_factor([(1.0, -1.0)], 480, 768)
    assert none == pytest.approx(step_factor([(1e6, 1.0)], 480, 768), rel=1e-4)


def test_means_are_taken_before_the_ratio() -> None:
    """A mean of ratios would say 1, and single steps alternate: a control."""
    pairs = [(0.03, 1.0), (-0.01, 1.0)] * 5
    assert step_factor(pairs, 480, 768) == pytest.approx(snr_step_factor(0.01, 480, 768))
    assert step_factor(pairs[1::2], 480, 768) == 1


def test_a_resumed_run_is_the_undisturbed_one_to_the_bit() -> None:
    ends = []
    for resumed in (False, True):
        model, examples = Linear(), Examples(0.3)
        optimizer = lion_ar(model)
        correction = corrected(model, optimizer, interval=2)
        train(model, optimizer, examples, 5)
        if resumed:
            memory, state = deepcopy((correction.memory(), optimizer.state_dict()))
            weights = deepcopy(model.state_dict())
            model = Linear()
            model.load_state_dict(weights)
            optimizer = lion_ar(model)
            optimizer.load_state_dict(state)
            correction = corrected(model, optimizer, interval=2, memory=memory)
        train(model, optimizer, examples, 5)
        ends.append((model.layer.weight.detach(), correction.factors()))
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_detached_it_leaves_angles_as_set() -> None:
    model = Linear()
    optimizer = lion_ar(model)
    correction = corrected(model, optimizer)
    train(model, optimizer, Examples(1.0), 2)
    correction.detach()
    probe = StepProbe(optimizer, model.named_parameters())
    train(model, optimizer, Examples(1.0), 2)
    assert probe.drain()["angular_update"] == pytest.approx(ANGLE, rel=1e-4)


def test_probe_and_optimizer_know_the_factor_by_one_name() -> None:
    assert ANGLE_FACTOR_KEY == ANGLE_FACTOR


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda m: LionA(m.parameters(), 0.1), {}, "LionA turns no weight"),
        (lambda m: torch.optim.SGD(m.parameters(), 0.1, weight_decay=0.1), {}, "SGD turns no"),
        (lambda m: LionAR(m.parameters(), 0.1), {}, "LionAR turns no weight"),
        (lion_ar, {"micro_batches": 1}, "one batch per step does not show its noise"),
        (lion_ar, {"micro_batches": 5}, "batch_size=24 examples cannot be 5 micro-batches"),
        (lion_ar, {"layers": "head"}, "layers='head' matches no layer"),
        (lion_ar, {"interval": 0}, "interval must be 1 or more"),
    ],
)
def test_what_cannot_be_corrected_is_refused_in_one_line(
    make: Any, options: dict[str, Any], words: str
) -> None:
    model = Linear()
    options = {"micro_batches": MICRO_BATCHES, **options}
    with pytest.raises(ValueError, match=words) as error:
        SNRCorrection(make(model), model.named_parameters(), EXAMPLES, **options)
    assert "\n" not in str(error.value)


def on_a_process(rank: int) -> Tensor:
    model = DistributedDataParallel(Linear())
    optimizer = lion_ar(model)
    named = model.module.named_parameters()
    correction = SNRCorrection(optimizer, named, EXAMPLES, interval=1)
    examples = Examples(1.0)
    for _ in range(3):
        model(examples.draw().chunk(distributed.get_world_size())[rank]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat(
        [
            model.module.layer.weight.detach().flatten(),
            torch.tensor(list(correction.factors().values())),
        ]
    )


@pytest.mark.slow
def test_processes_come_to_the_same_factors(tmp_path: Path) -> None:
    first, second = on_two_processes(tmp_path, on_a_process)
    assert torch.equal(first, second)
    assert float(first[-1]) == pytest.approx(snr_step_factor(1.0, EXAMPLES, FAN_IN), rel=0.05)
