"""RotationalUpdate in real training loops, beside probes, sharded and compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lion_pytorch
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.optim import SGD, AdamW, Optimizer

from smd_hooks import StepProbe
from smd_hooks.measure import ScaleInvarianceObserver
from smd_hooks.optim import RotationalUpdate
from smd_hooks.theory import UpdateRule, equilibrium_angle
from tests.measure.processes import PROCESSES, on_two_processes
from tests.optim.cases import norms
from tests.optim.digits import network, train

Make = Callable[[Any], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adamw": lambda p: AdamW(p, 2e-3, weight_decay=0.1),
    "lion": lambda p: lion_pytorch.Lion(p, 1e-3, weight_decay=0.1),
}
SCALE_INVARIANT = ["0.weight", "4.weight", "9.weight"]


def observe(name: str, constrained: bool) -> tuple[dict[str, float], float]:
    """Train; return RMS angles over the set one, and the largest change of a row's norm."""
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    if constrained:
        RotationalUpdate(optimizer)
    probe = StepProbe(optimizer, model.named_parameters())
    weights = {n: p for n, p in model.named_parameters() if p.ndim > 1}
    first = {n: norms(p, True) for n, p in weights.items()}
    train(model, optimizer, 300)
    frame = probe.to_frame()
    angles = frame[frame["step"] >= 100].groupby("parameter")["angular_update"]
    asked = equilibrium_angle(UpdateRule.from_optimizer(optimizer, optimizer.param_groups[0]))
    ratios = angles.apply(lambda a: (a**2).mean() ** 0.5) / asked
    changes = [float((norms(p, True) / first[n] - 1).abs().max()) for n, p in weights.items()]
    return ratios.to_dict(), max(changes)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_on_a_real_net_tensors_turn_as_set_and_keep_their_norms(name: str) -> None:
    ratios, change = observe(name, constrained=True)
    assert [ratios[n] for n in SCALE_INVARIANT] == pytest.approx([1, 1, 1], abs=0.03)
    assert change < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_control_without_it_they_do_neither(name: str) -> None:
    ratios, change = observe(name, constrained=False)
    assert max(abs(ratio - 1) for ratio in ratios.values()) > 0.1
    assert change > 0.1


@pytest.mark.parametrize("first", ["probe", "update"])
@pytest.mark.parametrize("foreach", [True, False])
def test_probes_see_final_weights_and_true_gradients_in_any_order(
    first: str, foreach: bool
) -> None:
    model = network()
    # without weight decay, torch's foreach form of this one changes gradients in place
    optimizer = SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, foreach=foreach)
    if first == "update":
        RotationalUpdate(optimizer, angle=0.02)
    probe = StepProbe(optimizer, model.named_parameters)
    observer = ScaleInvarianceObserver(model, optimizer)
    if first == "probe":
        RotationalUpdate(optimizer, angle=0.02)
    weight, wanted = model[4].weight, []
    for step in range(9):
        before = weight.detach().double().flatten()
        # what the gradient is before a step, no optimizer being there
        copy = network()
        copy.load_state_dict(model.state_dict())
        images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        for net in (copy, model):
            net.zero_grad()
            net(images).cos().sum().backward()
        optimizer.step()
        after = weight.detach().double().flatten()
        chord = float((after / after.norm() - before / before.norm()).norm())
        gradient = float(copy[4].weight.grad.double().norm())
        wanted.append((2 * math.asin(chord / 2), gradient, float(before.norm())))
    frame = probe.to_frame()
    assert set(frame["parameter"]) == {*SCALE_INVARIANT, "12.weight"}
    rows = frame[frame["parameter"] == "4.weight"]
    measured = rows[["angular_update", "gradient_norm", "weight_norm"]].to_numpy()
    assert measured == pytest.approx(np.array(wanted), rel=1e-4)
    verdicts = {v.parameter: v for v in observer.verdicts()}
    assert {n for n, v in verdicts.items() if v.scale_invariant} == set(SCALE_INVARIANT)
    assert verdicts["4.weight"].batches == 8
    statistic = verdicts["4.weight"].statistic
    assert statistic is not None
    assert statistic < 1e-5


def test_the_momentum_product_is_that_of_the_clean_buffer() -> None:
    weight = nn.Parameter(torch.randn(6, 5, dtype=torch.float64))
    optimizer = OPTIMIZERS["sgd"]([weight])
    RotationalUpdate(optimizer)
    probe, wanted = StepProbe(optimizer, [("w", weight)]), []
    for _ in range(4):
        weight.grad = torch.randn_like(weight)
        buffer = optimizer.state.get(weight, {}).get("momentum_buffer", torch.zeros(()))
        wanted.append(float((buffer * weight.grad).sum()))
        optimizer.step()
    assert probe.to_frame()["gradient_momentum_dot"].tolist() == pytest.approx(wanted, abs=1e-12)


def test_compiled_training_steps_are_turned_alike() -> None:
    ends = []
    for compiled in (False, True):
        model = network()
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        RotationalUpdate(optimizer)

        def step(model: nn.Module, optimizer: Optimizer, images: Tensor) -> None:
            model(images).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        call = torch.compile(step, backend="aot_eager") if compiled else step
        generator = torch.Generator().manual_seed(1)
        for _ in range(4):
            call(model, optimizer, torch.randn(6, 1, 8, 8, generator=generator))
        ends.append(model[4].weight.detach())
    assert torch.allclose(*ends, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------ sharded


def linear_net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(6, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 3)
    return nn.Sequential(*layers).double()


def losses(rank: int | None, per_neuron: bool, make: Make = OPTIMIZERS["adamw"]) -> list[Tensor]:
    """Train; with a rank, as one of two processes that share the weights' rows."""
    model = linear_net()
    if rank is not None:
        fully_shard(model)
    optimizer = make(model.parameters())
    RotationalUpdate(optimizer, per_neuron=per_neuron)
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(20):
        optimizer.zero_grad()
        images = torch.randn(8, 6, dtype=torch.float64, generator=generator)
        whole = model(images).square().mean()
        whole.backward()  # the same batch on every process: gradients are means
        found.append(whole.detach())
        optimizer.step()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("per_neuron", [True, False])
def test_sharded_weights_are_turned_as_whole_ones(tmp_path: Path, per_neuron: bool) -> None:
    whole = torch.stack(losses(None, per_neuron))
    for told in on_two_processes(tmp_path, losses, per_neuron):
        assert torch.allclose(torch.stack(told), whole, rtol=1e-10)
    assert PROCESSES == 2


# ------------------------------------------------------------------------------- a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fused", [False, True])
def test_on_a_gpu_it_steps_as_on_a_cpu_and_waits_for_nothing(fused: bool) -> None:
    ends = []
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(1)
        shapes = ((40, 60), (16, 8, 3, 3), (9,))
        drawn = [torch.randn(shape, generator=generator) for shape in shapes]
        weights = [nn.Parameter(w.to(device)) for w in drawn]
        optimizer = AdamW(weights, 1e-2, weight_decay=0.1, fused=fused)
        RotationalUpdate(optimizer)
        try:
            for step in range(20):
                for w, d in zip(weights, drawn, strict=True):
                    w.grad = torch.randn(d.shape, generator=generator).to(device)
                if device == "cuda" and step > 2:
                    torch.cuda.set_sync_debug_mode("error")
                optimizer.step()
                torch.cuda.set_sync_debug_mode("default")
        finally:
            torch.cuda.set_sync_debug_mode("default")
        ends.append([w.detach().cpu() for w in weights])
    for ours, theirs in zip(*ends, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
