"""The probe in loops that freeze, grow, compile, scale, close over and swap."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smd_hooks import StepProbe
from tests.measure.test_probe import network


def test_parameters_frozen_added_and_taken_out_mid_run() -> None:
    first, second, late = (nn.Parameter(torch.randn(2, 2)) for _ in range(3))
    stranger = nn.Parameter(torch.randn(2, 2))
    optimizer = torch.optim.SGD([first, second], lr=0.1)
    probe = StepProbe(optimizer, [("first", first), ("second", second), ("late", late)])

    def step() -> set[str]:
        for p in (first, second, late, stranger):
            p.grad = torch.randn_like(p) if p.requires_grad else None
        optimizer.step()
        frame = probe.to_frame()
        probe.drain()
        return set(frame["parameter"])

    assert step() == {"first", "second"}
    second.requires_grad_(False)
    assert step() == {"first"}
    optimizer.add_param_group({"params": [late, stranger], "lr": 0.5})
    assert step() == {"first", "late", "optimizer.3"}
    second.requires_grad_(True)
    del optimizer.param_groups[0]["params"][0]
    assert step() == {"second", "late", "optimizer.3"}
    assert probe.names == ["first", "second", "late", "optimizer.3"]


def test_an_optimizer_whose_state_was_loaded_is_read_anew() -> None:
    """``load_state_dict`` makes new groups and new buffers."""
    weight = nn.Parameter(torch.randn(3, 3, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    probe = StepProbe(optimizer, [("w", weight)])
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = 0.7
    optimizer.load_state_dict(state)
    buffer = optimizer.state[weight]["momentum_buffer"].clone()
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    last = probe.to_frame().iloc[-1]
    assert last["lr"] == 0.7
    assert last["gradient_momentum_dot"] == pytest.approx(float((buffer * weight.grad).sum()))


def test_weights_whose_data_is_swapped_between_steps() -> None:
    """EMAHook swaps ``param.data`` for validation and back."""
    frames = []
    for swapped in (False, True):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(3, 3))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        probe = StepProbe(optimizer, [("w", weight)])
        average = torch.zeros(3, 3)
        for _ in range(3):
            weight.grad = torch.randn_like(weight)
            optimizer.step()
            if swapped:
                weight.data, average = average, weight.data
                weight.data, average = average, weight.data.clone()
        frames.append(probe.to_frame())
    assert frames[0].equals(frames[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_said_with_its_angle(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.randn(300, 300, dtype=dtype))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with pytest.warns(UserWarning, match=r"StepProbe: 1 of 1 weights \(w, …\) are .*float16"):
        probe = StepProbe(optimizer, [("w", weight)])
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    assert 0 < probe.to_frame()["angular_update"].iloc[0] < 0.2


def test_compiled_training_steps_are_measured_alike() -> None:
    frames = []
    for compiled in (False, True):
        model = network()
        model(torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(2)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        probe = StepProbe(optimizer, model.named_parameters())

        def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        call = torch.compile(step, backend="aot_eager") if compiled else step
        generator = torch.Generator().manual_seed(1)
        for _ in range(4):
            call(model, optimizer, torch.randn(6, 3, 6, 6, generator=generator))
        frames.append(probe.to_frame())
    assert len(frames[0]) == len(frames[1]) == 8
    numbers = [f.select_dtypes("number").to_numpy() for f in frames]
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-4, abs=1e-6)


def test_wrapped_models_keep_their_plain_names() -> None:
    model = torch.compile(nn.Sequential(nn.Linear(2, 2)), backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert StepProbe(optimizer, model.named_parameters()).names == ["0.weight"]


def test_a_matrix_that_moves_to_another_group_takes_its_rate() -> None:
    weights = [nn.Parameter(torch.randn(2, 2)) for _ in range(2)]
    groups = [{"params": [weights[0]], "lr": 0.1}, {"params": [weights[1]], "lr": 0.001}]
    optimizer = torch.optim.SGD(groups)
    probe = StepProbe(optimizer, [("a", weights[0]), ("b", weights[1])])
    for _ in range(2):
        for w in weights:
            w.grad = torch.randn_like(w)
        optimizer.step()
        first, second = optimizer.param_groups
        first["params"], second["params"] = second["params"], first["params"]
    frame = probe.to_frame()
    assert frame[frame["parameter"] == "a"]["lr"].tolist() == [0.1, 0.001]


def test_a_model_that_grows_keeps_its_names() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = StepProbe(optimizer, model.named_parameters)
    model.append(nn.Linear(2, 2))
    optimizer.add_param_group({"params": list(model[1].parameters())})
    model(torch.randn(1, 2)).sum().backward()
    optimizer.step()
    assert probe.names == ["0.weight", "1.weight"]
    assert len(probe.to_frame()) == 2


@pytest.mark.parametrize("zeroed", [False, True])
def test_gradients_that_a_closure_makes_are_seen(zeroed: bool) -> None:
    frames = []
    for with_closure in (False, True):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(3, 3))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        probe = StepProbe(optimizer, [("w", weight)])
        for _ in range(3):

            def closure(optimizer: Any = optimizer, weight: Tensor = weight) -> Tensor:
                optimizer.zero_grad()
                loss = (weight.cos() ** 2).sum()
                loss.backward()
                return loss

            if with_closure:
                if zeroed:
                    optimizer.zero_grad()
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
        frames.append(probe.to_frame())
    assert len(frames[0]) == 3
    assert frames[0].equals(frames[1])


def test_gradients_that_the_optimizer_changes_in_place_are_read_as_they_were() -> None:
    """Nesterov with foreach and without decay adds the momentum into ``p.grad`` itself."""
    frames = []
    for foreach in (False, True):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(5, 5))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, nesterov=True, foreach=foreach)
        probe = StepProbe(optimizer, [("w", weight)])
        for _ in range(4):
            gradient = torch.randn_like(weight)
            weight.grad = gradient.clone()
            optimizer.step()
        assert torch.equal(weight.grad, gradient) is not foreach  # it does
        frames.append(probe.to_frame().select_dtypes("number").to_numpy())
    assert frames[1] == pytest.approx(frames[0], rel=1e-4, abs=1e-5)


def test_gradients_that_a_stranger_changes_in_place_are_not_told() -> None:
    class Signs(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            for p in self.param_groups[0]["params"]:
                p.grad.sign_()
            super().step()

    weight = nn.Parameter(torch.randn(3, 3))
    torch.optim.SGD([weight])  # from now on torch calls hooks in SGD.step, too
    optimizer = Signs([weight], lr=0.1)
    probe = StepProbe(optimizer, [("w", weight)])
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    (row,) = probe.to_frame().to_dict("records")
    assert math.isnan(row["gradient_norm"])
    assert row["angular_update"] > 0
    assert probe.step == 1


def test_what_has_no_angle_is_left_out() -> None:
    whole = nn.Parameter(torch.randn(3, 3))
    others = {
        "quantized": nn.Parameter(torch.ones(3, 3, dtype=torch.int8), requires_grad=False),
        "complex": nn.Parameter(torch.ones(3, 3, dtype=torch.complex64)),
        "empty": nn.Parameter(torch.ones(0, 3)),
    }
    optimizer = torch.optim.SGD([whole, *others.values()], lr=0.1)
    probe = StepProbe(optimizer, [("whole", whole), *others.items()], per_filter=True)
    assert probe.names == ["whole"]


@pytest.mark.parametrize("fused", [False, True])
def test_under_a_gradient_scaler(fused: bool) -> None:
    """Gradients are unscaled ones, and a step that the scaler skips is no sample."""
    batches = torch.randn(3, 6, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    frames = []
    for scaled in (True, False):
        model = network()
        model(torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(2)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
        probe = StepProbe(optimizer, model.named_parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        for i, batch in enumerate(batches):
            overflow = i == 1
            if overflow and not scaled:
                continue
            optimizer.zero_grad()
            loss = model[4](model[:4].eval()(batch)).square().mean()
            scaler.scale(loss * (float("inf") if overflow else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
        frames.append(probe.to_frame())
        assert probe.step == 2  # a skipped step is none
        assert probe.state_dict() == {
            "attempts": 3 if scaled and fused else 2,
            "skipped": int(scaled and fused),
        }
    assert frames[0]["step"].tolist() == [0, 0, 1, 1]
    numbers = [frame.select_dtypes("number").to_numpy() for frame in frames]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-4, abs=1e-6)


def test_counting_goes_on_after_a_resume_with_skipped_steps() -> None:
    weight = nn.Parameter(torch.randn(3, 3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    probe = StepProbe(optimizer, [("w", weight)], interval=4)
    probe.load_state_dict({"attempts": 10, "skipped": 3})
    for _ in range(8):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    assert probe.step == 15
    assert probe.to_frame()["step"].tolist() == [9, 13]  # attempts 12 and 16
