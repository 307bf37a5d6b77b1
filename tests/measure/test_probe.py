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
    return {
        "sgd": torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
        "sgdw": SGDW(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
        "adam": torch.optim.Adam(parameters, lr=0.1, weight_decay=0.1),
        "adamw": torch.optim.AdamW(parameters, lr=0.1),
        "lion": Lion(parameters, lr=0.1, weight_decay=0.1),
        "timm lion": TimmLion(parameters, lr=0.1, weight_decay=0.1),
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


@pytest.mark.parametrize("interval", [0, -3, 2.5, "5", None, True])
def test_a_senseless_interval_is_refused(interval: Any) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match="StepProbe: interval must be a whole number"):
        StepProbe(torch.optim.SGD([weight]), [("w", weight)], interval)


def test_an_optimizer_without_matrices_is_refused() -> None:
    bias = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="no weight matrix"):
        StepProbe(torch.optim.SGD([bias]), [("b", bias)])
