from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smd_hooks import StepProbe


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(6, 3, 6, 6, generator=generator)
        y = torch.randint(4, (6,), generator=generator)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "foreach": True},
    ],
)
def test_samples_equal_what_a_loop_that_copies_everything_sees(settings: dict[str, Any]) -> None:
    model = network()
    model(torch.randn(6, 3, 6, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01, **settings)
    probe = StepProbe(optimizer, model.named_parameters())
    weight = model[0].weight
    wanted: list[dict[str, float]] = []
    kept: dict[str, Tensor] = {}

    def before(*_: object) -> None:
        kept["w"] = weight.detach().double().clone()
        buffer = optimizer.state[weight].get("momentum_buffer")
        kept["v"] = torch.zeros_like(kept["w"]) if buffer is None else buffer.double().clone()

    def after(*_: object) -> None:
        w, v, w2 = kept["w"].flatten(), kept["v"].flatten(), weight.detach().double().flatten()
        g = weight.grad.double().flatten()
        wanted.append(
            {
                "weight_norm": float(w.norm()),
                "gradient_norm": float(g.norm()),
                "unit_gradient_norm": float(w.norm() * g.norm()),
                "gradient_momentum_dot": float(v @ g),
                "update_norm": float((w2 - w).norm()),
                "angular_update": 2 * math.asin(float((w2 / w2.norm() - w / w.norm()).norm()) / 2),
            }
        )

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
    train(model, optimizer, 5)
    frame = probe.to_frame()
    frame = frame[frame["parameter"] == "0.weight"]
    assert frame["step"].tolist() == list(range(5))
    assert (frame["lr"] == 0.1).all()
    assert (frame["weight_decay"] == 0.01).all()
    for row, reference in zip(frame.to_dict("records"), wanted, strict=True):
        measured = {name: row[name] for name in reference}
        # the momentum buffer is fp32: ⟨v₋₁, g⟩ is known to its rounding
        assert measured == pytest.approx(reference, rel=1e-5, abs=1e-7)


def test_measuring_changes_nothing() -> None:
    weights = []
    for probed in (False, True):
        model = network()
        model(torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(2)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if probed:
            StepProbe(optimizer, model.named_parameters(), interval=2)
        train(model, optimizer, 6)
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_interval_and_a_resumed_count() -> None:
    model = network()
    model(torch.randn(6, 3, 6, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = StepProbe(optimizer, model.named_parameters(), interval=4, first_step=10)
    train(model, optimizer, 10)
    assert sorted(set(probe.to_frame()["step"])) == [12, 16]
    assert probe.step == 20


def test_drained_samples_are_gone_and_detached_probes_see_nothing() -> None:
    model = network()
    model(torch.randn(6, 3, 6, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = StepProbe(optimizer, model.named_parameters())
    train(model, optimizer, 2)
    assert len(probe.drain()["step"]) == 4  # conv and linear, twice
    assert len(probe.drain()["step"]) == 0
    probe.detach()
    train(model, optimizer, 2)
    assert len(probe.to_frame()) == 0


def test_frozen_and_unused_weights_leave_no_rows() -> None:
    model = network()
    model(torch.randn(6, 3, 6, 6))
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = StepProbe(optimizer, model.named_parameters())
    train(model, optimizer, 2)
    assert set(probe.to_frame()["parameter"]) == {"4.weight"}


def test_each_group_keeps_its_own_rate_and_decay() -> None:
    model = network()
    model(torch.randn(6, 3, 6, 6))
    groups = [
        {"params": [model[0].weight], "lr": 0.5, "weight_decay": 0.3},
        {"params": [model[4].weight]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.2)
    probe = StepProbe(optimizer, model.named_parameters())
    train(model, optimizer, 1)
    frame = probe.to_frame().set_index("parameter")
    assert frame["lr"].to_dict() == {"0.weight": 0.5, "4.weight": 0.1}
    assert frame["weight_decay"].to_dict() == {"0.weight": 0.3, "4.weight": 0.2}


def test_an_optimizer_without_heavy_ball_has_no_momentum_product() -> None:
    model = network()
    model(torch.randn(6, 3, 6, 6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    probe = StepProbe(optimizer, model.named_parameters())
    train(model, optimizer, 1)
    frame = probe.to_frame()
    assert frame["gradient_momentum_dot"].isna().all()
    assert (frame["angular_update"] > 0).all()


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
        frames.append(probe.to_frame().drop(columns="step"))
    assert len(frames[0]) == 4
    assert frames[0].drop(columns="parameter").select_dtypes("number").to_numpy() == pytest.approx(
        frames[1].select_dtypes("number").to_numpy(), rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize("interval", [0, -3])
def test_a_senseless_interval_is_refused(interval: int) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match="interval must be 1 or more"):
        StepProbe(torch.optim.SGD([weight]), [("w", weight)], interval)


def test_an_optimizer_without_matrices_is_refused() -> None:
    bias = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="no named parameter"):
        StepProbe(torch.optim.SGD([bias]), [("b", bias)])
