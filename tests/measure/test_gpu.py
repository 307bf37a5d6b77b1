"""What only a GPU can show: no waiting for it, and its own ways of stepping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from smd_hooks import StepProbe
from smd_hooks.measure import InvarianceWatch
from smd_hooks.measure.fused import fused_step_sums, load_triton
from smd_hooks.measure.geometry import as_vectors, step_sums
from smd_hooks.measure.samples import CAPACITY

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(4),
    ).cuda()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 3, 8, 8, device="cuda")).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("settings", [{}, {"foreach": True}, {"fused": True}])
def test_nothing_waits_for_the_gpu_between_flushes(settings: dict[str, Any]) -> None:
    model = network()
    model(torch.randn(8, 3, 8, 8, device="cuda"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **settings)
    probe = StepProbe(optimizer, model.named_parameters())
    watch = InvarianceWatch(model, optimizer)
    train(model, optimizer, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train(model, optimizer, CAPACITY - 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(probe) == CAPACITY - 1
    findings = watch.poll()
    assert findings is not None
    assert probe.to_frame()["step"].max() == CAPACITY - 2


def test_control_the_peers_way_waits() -> None:
    weight = torch.randn(9, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            weight.norm().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_is_none(fused: bool) -> None:
    model = network()
    model(torch.randn(8, 3, 8, 8, device="cuda"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
    probe = StepProbe(optimizer, model.named_parameters())
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
    for i in range(4):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = model(torch.randn(8, 3, 8, 8, device="cuda")).float().square().mean()
        scaler.scale(loss * (float("inf") if i == 1 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert probe.step == 3
    frame = probe.to_frame()
    assert sorted(set(frame["step"])) == [0, 1, 2]
    assert (frame["gradient_norm"] < 100).all()  # unscaled ones


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_pass_in_triton_equals_the_reference_on_the_host(
    layout: torch.memory_format,
) -> None:
    assert load_triton(torch.float32, torch.device("cuda", 0)) is not None
    steps = []
    for channels in (64, 5_000_000 // (64 * 9) + 1):
        tensors = [torch.randn(channels, 64, 3, 3).to(memory_format=layout) for _ in range(4)]
        steps.append(tensors)
    wanted = torch.stack([step_sums(*as_vectors(tensors)) for tensors in steps])
    on_gpu = [tuple(as_vectors([t.cuda() for t in tensors])) for tensors in steps]
    with torch.no_grad():
        got = fused_step_sums(on_gpu)
    assert got.device.type == "cuda"
    scale = torch.linalg.vector_norm(wanted, dim=-1, keepdim=True)
    assert ((got.cpu() - wanted).abs() <= 1e-11 * scale).all()


def test_bf16_weights_under_channels_last() -> None:
    model = network().to(torch.bfloat16, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD([model[0].weight], lr=0.5)
    with pytest.warns(UserWarning, match="bfloat16"):
        probe = StepProbe(optimizer, model.named_parameters())
    for _ in range(3):
        model[0].weight.grad = torch.randn_like(model[0].weight)
        optimizer.step()
    assert (probe.to_frame()["angular_update"] > 0).all()
