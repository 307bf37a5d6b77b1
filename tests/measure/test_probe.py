from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from lion_pytorch import Lion
from timm.optim import SGDW
from timm.optim import Lion as TimmLion
from torch import Tensor, nn

from smd_hooks import StepProbe
from smd_hooks.measure.samples import CAPACITY, RING_BYTES
from smd_hooks.optim import LionA, LionAR, RotationalAdamW, RotationalLion, RotationalSGD
from tests.measure.host_reads import NoHostRead


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


def some_optimizers(parameters: list[nn.Parameter]) -> dict[str, torch.optim.Optimizer]:
    opted_out = [{"params": parameters, "rotational": False}]
    return {
        "sgd": torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
        "sgdw": SGDW(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
        "adam": torch.optim.Adam(parameters, lr=0.1, weight_decay=0.1),
        "adamw": torch.optim.AdamW(parameters, lr=0.1),
        "lion": Lion(parameters, lr=0.1, weight_decay=0.1),
        "timm lion": TimmLion(parameters, lr=0.1, weight_decay=0.1),
        "lion a": LionA(parameters, lr=0.1, weight_decay=0.1, nesterov=True),
        "lion ar": LionAR(parameters, lr=0.1, weight_decay=0.1),
        "rotational sgd": RotationalSGD(parameters, lr=0.1, weight_decay=0.1),
        "rotational sgd, not turned": RotationalSGD(opted_out, lr=0.1, weight_decay=0.1),
        "rotational adamw": RotationalAdamW(parameters, lr=0.1, weight_decay=0.1),
        "rotational lion": RotationalLion(parameters, lr=0.1, weight_decay=0.1),
    }


@pytest.mark.parametrize("name", list(some_optimizers([nn.Parameter(torch.ones(2, 2))])))
def test_the_momentum_product_is_that_of_the_buffer_before_the_step(name: str) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 5, dtype=torch.float64))
    optimizer = some_optimizers([weight])[name]
    probe = StepProbe(optimizer, [("w", weight)])
    wanted = []
    for _ in range(4):
        weight.grad = torch.randn_like(weight)
        state = optimizer.state.get(weight, {})
        buffer = state.get("momentum_buffer", state.get("exp_avg"))
        wanted.append(0.0 if buffer is None else float((buffer * weight.grad).sum()))
        optimizer.step()
    assert probe.to_frame()["gradient_momentum_dot"].tolist() == pytest.approx(wanted, abs=1e-12)
    assert abs(wanted[-1]) > 1e-3


def test_a_stranger_has_no_momentum_product() -> None:
    """Another class may call something else ``momentum_buffer``: a name is no proof."""

    class SGD(torch.optim.SGD):
        pass

    weight = nn.Parameter(torch.randn(3, 3))
    for optimizer in (
        SGD([weight], lr=0.1, momentum=0.9),
        torch.optim.SGD([weight], lr=0.1, momentum=0.9, maximize=True),
    ):
        probe = StepProbe(optimizer, [("w", weight)])
        for _ in range(2):
            weight.grad = torch.randn_like(weight)
            optimizer.step()
        frame = probe.to_frame()
        assert frame["gradient_momentum_dot"].isna().all()
        assert (frame["angular_update"] > 0).all()
        probe.detach()


def test_filters_are_measured_beside_their_tensor() -> None:
    torch.manual_seed(0)
    whole, apart = nn.Parameter(torch.randn(4, 3, 2, 2)), []
    apart = [nn.Parameter(row.detach().clone()[None]) for row in whole]
    frames = []
    for weights, per_filter in (([whole], True), (apart, False)):
        generator = torch.Generator().manual_seed(1)
        optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.01)
        named = [(f"w{i}", w) for i, w in enumerate(weights)]
        probe = StepProbe(optimizer, named, per_filter=per_filter)
        for _ in range(3):
            g = torch.randn(4, 3, 2, 2, generator=generator)
            for i, w in enumerate(weights):
                w.grad = g.clone() if per_filter else g[i : i + 1].clone()
            optimizer.step()
        frames.append(probe.to_frame())
    filters, tensors = frames
    assert filters["unit"].tolist() == 3 * [
        "tensor",
        "filter 0",
        "filter 1",
        "filter 2",
        "filter 3",
    ]
    rows = filters[filters["unit"] != "tensor"].drop(columns=["parameter", "unit"])
    alone = tensors.drop(columns=["parameter", "unit"])
    assert rows.to_numpy(float) == pytest.approx(alone.to_numpy(float), rel=1e-6, abs=1e-7)


def test_a_joint_group_is_the_concatenated_vector() -> None:
    torch.manual_seed(0)
    left, right = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(2, 3))
    both = nn.Parameter(torch.cat([left.detach(), right.detach()]))
    optimizer = torch.optim.SGD([left, right, both], lr=0.1, momentum=0.9, weight_decay=0.01)
    probe = StepProbe(optimizer, [("left", left), ("right", right), ("both", both)])
    assert probe.join(["left", "right"]) == probe.join(["left", "right"]) == 3
    for _ in range(3):
        both.grad = torch.randn_like(both)
        left.grad, right.grad = both.grad[:4].clone(), both.grad[4:].clone()
        optimizer.step()
    frame = probe.to_frame().set_index("parameter")
    assert set(frame.loc["left + right", "unit"]) == {"joint"}
    joint, alone = (frame.loc[n].drop(columns="unit").to_numpy() for n in ("left + right", "both"))
    assert joint == pytest.approx(alone, rel=1e-6)
    with pytest.raises(KeyError):
        probe.join(["left", "nobody"])


def test_only_some_weights_filters() -> None:
    weights = [nn.Parameter(torch.randn(2, 3)) for _ in range(2)]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    probe = StepProbe(optimizer, [("a", weights[0]), ("b", weights[1])], per_filter=True)
    for _ in range(2):
        for w in weights:
            w.grad = torch.randn_like(w)
        optimizer.step()
        probe.measure_filters(["b"])
    frame = probe.to_frame()
    rows = frame[frame["unit"] != "tensor"].groupby(["step", "parameter"]).size()
    assert rows.to_dict() == {(0, "a"): 2, (0, "b"): 2, (1, "b"): 2}


def test_a_ring_of_large_samples_is_no_larger_than_it_may_be() -> None:
    weight = nn.Parameter(torch.randn(20_000, 2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    probe = StepProbe(optimizer, [("w", weight)], per_filter=True)
    for _ in range(20):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    assert probe._ring._ring is not None
    assert probe._ring._ring.nbytes <= RING_BYTES
    assert len(probe) == 20
    assert len(probe.drain()["step"]) == 20 * 20_001


def test_a_learning_rate_that_is_a_tensor_is_not_read_in_the_step() -> None:
    weight, lr = nn.Parameter(torch.randn(3, 3)), torch.tensor(0.5)
    optimizer = torch.optim.SGD([weight], lr=lr, momentum=0.9)
    probe = StepProbe(optimizer, [("w", weight)])
    for value in (0.5, 0.25):
        lr.fill_(value)  # as a scheduler does, in place
        weight.grad = torch.randn_like(weight)
        before, after = probe._before_step, probe._after_step
        with NoHostRead():
            before(optimizer, (), {})
        with torch.no_grad():
            weight.sub_(weight.grad * lr)
        with NoHostRead():
            after(optimizer, (), {})
    assert probe.to_frame()["lr"].tolist() == [0.5, 0.25]


def test_a_full_ring_keeps_every_sample() -> None:
    steps = 2 * CAPACITY + 3
    weight = nn.Parameter(torch.randn(3, 3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    probe = StepProbe(optimizer, [("w", weight)])
    norms = []
    for _ in range(steps):
        norms.append(float(weight.detach().double().norm()))
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    assert len(probe) == steps
    assert probe.to_frame()["weight_norm"].tolist() == pytest.approx(norms, rel=1e-6)


@pytest.mark.parametrize("interval", [0, -3, 2.5, "5", None, True])
def test_a_senseless_interval_is_refused(interval: Any) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match="StepProbe: interval must be a whole number"):
        StepProbe(torch.optim.SGD([weight]), [("w", weight)], interval)


def test_an_optimizer_without_matrices_is_refused() -> None:
    bias = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="no weight matrix"):
        StepProbe(torch.optim.SGD([bias]), [("b", bias)])
