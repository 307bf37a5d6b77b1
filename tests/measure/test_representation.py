from __future__ import annotations

import copy
import io
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smd_hooks.measure.representation import (
    EXAMPLES,
    POSITIONS,
    RepresentationProbe,
    representation_change,
    some_examples,
)

from .host_reads import NoHostRead

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(24, 12), (6, 24)),
    "linear on sequences": (lambda: nn.Linear(24, 12, bias=False), (3, 5, 24)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 4, 9, 9)),
    "strided": (lambda: nn.Conv2d(4, 6, 3, stride=2, bias=False), (4, 4, 9, 9)),
    "dilated": (lambda: nn.Conv2d(4, 6, 3, dilation=2, padding="same"), (4, 4, 9, 9)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 4, 9, 9)),
    "depthwise": (lambda: nn.Conv2d(4, 4, (3, 1), groups=4, bias=False), (4, 4, 9, 9)),
    "circular": (lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular"), (4, 4, 9, 9)),
    "one dimension": (lambda: nn.Conv1d(4, 6, 5, stride=3), (4, 4, 20)),
    "three dimensions": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4)),
    "one example": (lambda: nn.Conv2d(4, 6, 3), (4, 9, 9)),
}


def direct(layer: nn.Module, inputs: Tensor, before: Tensor, after: Tensor) -> float:
    """RRC from the layer's own outputs in float64, with the bias taken off."""
    twin = copy.deepcopy(layer).double()
    outputs = []
    for weight in (before, after):
        with torch.no_grad():
            twin.weight.copy_(weight)
            outputs.append(twin(inputs.double()))
    with torch.no_grad():
        outputs.append(outputs[0] - _bias_alone(twin, inputs.double()))
    old, new, linear = outputs
    return float((new - old).norm() / linear.norm())


def _bias_alone(layer: nn.Module, inputs: Tensor) -> Tensor:
    weight = layer.weight.clone()
    layer.weight.zero_()
    answer = layer(inputs)
    layer.weight.copy_(weight)
    return answer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_it_equals_the_layers_own_answers_in_float64(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, inputs = make(), torch.randn(shape)
    before = layer.weight.detach().to(dtype)
    after = (before + 1e-3 * torch.randn_like(before)).to(dtype)
    measured = representation_change(layer, inputs, before, after)
    wanted = direct(layer, inputs, before, after)
    assert float(measured) == pytest.approx(wanted, rel=1e-6)


def test_the_bias_is_left_out() -> None:
    """Control: with it, the same step looks smaller by far."""
    layer, inputs = nn.Linear(24, 12), torch.randn(6, 24)
    nn.init.constant_(layer.bias, 10.0)
    after = layer.weight.detach() * 1.01
    measured = float(representation_change(layer, inputs, layer.weight, after))
    assert measured == pytest.approx(0.01, rel=1e-4)
    with_bias = nn.functional.linear(inputs, 0.01 * layer.weight).norm() / layer(inputs).norm()
    assert with_bias.item() < 0.2 * measured


def test_autocast_does_not_coarsen_it() -> None:
    layer, inputs = nn.Linear(24, 12), torch.randn(6, 24)
    after = layer.weight.detach() + 1e-3 * torch.randn(12, 24)
    with torch.autocast("cpu", torch.bfloat16):
        measured = float(representation_change(layer, inputs, layer.weight, after))
    assert measured == pytest.approx(direct(layer, inputs, layer.weight, after), rel=1e-6)


def test_a_silent_layer_has_no_relative_change() -> None:
    layer = nn.Linear(3, 2)
    change = representation_change(layer, torch.ones(4, 3), torch.zeros(2, 3), torch.ones(2, 3))
    assert math.isnan(change)


@pytest.mark.parametrize(
    ("layer", "shape", "kept"),
    [
        (nn.Linear(3, 2), (10 * POSITIONS, 3), POSITIONS),
        (nn.Linear(3, 2), (40, POSITIONS, 3), POSITIONS),
        (nn.Linear(3, 2), (5, 3), 5),
        (nn.Conv2d(3, 2, 3), (20 * EXAMPLES, 3, 64, 64), EXAMPLES),
        (nn.Conv2d(3, 2, 1), (10 * POSITIONS, 3, 1, 1), POSITIONS),
        (nn.Conv2d(3, 2, 3), (EXAMPLES + 1, 3, 64, 64), EXAMPLES),
        (nn.Conv2d(3, 2, 1), (0, 3, 7, 7), 0),
    ],
)
def test_few_examples_are_kept_of_a_large_batch(
    layer: Any, shape: tuple[int, ...], kept: int
) -> None:
    inputs = torch.rand(shape)
    examples = some_examples(layer, inputs)
    assert kept / 2 <= len(examples) <= kept
    inputs.zero_()
    assert (examples > 0).any() or kept == 0  # a copy: later in-place operations cannot reach it


@pytest.mark.parametrize("shape", [(512, 12), (64, 64), (64, 63), (16, 16, 24)])
def test_all_positions_of_a_sequence_are_met_alike(shape: tuple[int, ...]) -> None:
    """Every fourth row of sequences of 12 would be every fourth token of each."""
    positions = torch.arange(math.prod(shape[1:])).reshape(shape[1:])
    inputs = positions.expand(shape).unsqueeze(-1).float()
    met = some_examples(nn.Linear(1, 1), inputs).flatten().long().bincount(None, positions.numel())
    assert met.max() - met.min() <= 1
    assert POSITIONS / 2 <= met.sum() <= POSITIONS


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)
        self.unused = nn.Linear(6, 4)
        self.calls = 1

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.conv(x)).relu().mean((2, 3))
        return sum(self.head(features * (i + 1)) for i in range(self.calls))  # type: ignore[return-value]


def setting(**options: Any) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Net()
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **options)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, micro_batches: int = 1
) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(micro_batches):
            model(torch.randn(6, 3, 9, 9, generator=generator)).cos().mean().backward()
        optimizer.step()


class LoopThatCopiesEverything:
    """Keeps every input and every weight of a layer, and works RRC out in float64."""

    def __init__(self, layer: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.changes: list[float] = []
        kept: dict[str, Tensor] = {}

        def remember(_: nn.Module, args: tuple[Tensor]) -> None:
            kept["inputs"] = args[0].detach().clone()

        def before(*_: object) -> None:
            kept["weight"] = layer.weight.detach().clone()

        def after(*_: object) -> None:
            self.changes.append(direct(layer, kept["inputs"], kept["weight"], layer.weight))

        layer.register_forward_pre_hook(remember)
        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)


@pytest.mark.parametrize(("micro_batches", "calls"), [(1, 1), (3, 1), (1, 2)])
def test_a_training_run_is_measured_at_its_last_forward(micro_batches: int, calls: int) -> None:
    model, optimizer = setting()
    model.calls = calls
    loops = {
        "conv.weight": LoopThatCopiesEverything(model.conv, optimizer),
        "head.weight": LoopThatCopiesEverything(model.head, optimizer),
    }
    probe = RepresentationProbe(optimizer, model, ["conv", "h*"], interval=1)
    train(model, optimizer, 4, micro_batches)
    columns = probe.drain()
    assert columns["step"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for name, loop in loops.items():
        of_layer = columns["representation_change"][columns["parameter"] == name]
        assert of_layer == pytest.approx(loop.changes, rel=1e-6)
    # control: the batch matters, another step's change is not this one's
    assert of_layer[1:] != pytest.approx(loop.changes[:-1], rel=1e-2)


def test_measuring_changes_nothing() -> None:
    weights = []
    for probed in (False, True):
        model, optimizer = setting()
        if probed:
            RepresentationProbe(optimizer, model, "*", interval=2)
        train(model, optimizer, 5)
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_nothing_is_read_on_the_host_before_draining() -> None:
    model, optimizer = setting()
    probe = RepresentationProbe(optimizer, model, "*", interval=1)
    with NoHostRead():
        train(model, optimizer, 2)
        with pytest.raises(AssertionError, match="read on the host"):
            model.conv.weight.norm().item()
    assert len(probe) == 2


def test_forwards_in_eval_mode_are_not_the_steps() -> None:
    measured = []
    for evaluated in (False, True):
        model, optimizer = setting()
        probe = RepresentationProbe(optimizer, model, "conv", interval=1)
        model(torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(2))).sum().backward()
        if evaluated:
            model.eval()
            model(torch.zeros(2, 3, 9, 9))
            model.train()
        optimizer.step()
        measured.append(probe.drain()["representation_change"].tolist())
    assert measured[0] == measured[1]


def test_interval_a_resumed_count_and_detaching() -> None:
    model, optimizer = setting()
    probe = RepresentationProbe(optimizer, model, "conv", interval=4, first_step=10)
    train(model, optimizer, 10)
    assert len(probe) == 2
    assert probe.drain()["step"].tolist() == [12, 16]
    assert probe.drain()["step"].tolist() == []
    probe.detach()
    train(model, optimizer, 5)
    assert (len(probe), probe.step) == (0, 20)


def test_layers_without_a_call_or_a_gradient_leave_no_row() -> None:
    model, optimizer = setting()
    probe = RepresentationProbe(optimizer, model, "*", interval=1)
    model.conv.weight.requires_grad_(False)
    train(model, optimizer, 1)
    assert probe.drain()["parameter"].tolist() == ["head.weight"]


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_gradient_scaler_skips_are_left_out(fused: bool) -> None:
    model, optimizer = setting(fused=fused)
    probe = RepresentationProbe(optimizer, model, "conv", interval=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (1.0, math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(6, 3, 9, 9)).cos().mean() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    columns = probe.drain()
    assert columns["step"].tolist() == [0, 1]
    assert (columns["representation_change"] > 0).all()
    assert probe.step == 2


def test_under_torch_compile() -> None:
    """Graph capture is what can go wrong; the backend does not matter."""
    measured = []
    for compiled in (False, True):
        model, optimizer = setting()
        probe = RepresentationProbe(optimizer, model, ["conv", "head"], interval=2)
        runner = torch.compile(model, backend="aot_eager") if compiled else model
        train(runner, optimizer, 3)
        columns = probe.drain()
        assert columns["step"].tolist() == [0, 0, 2, 2]
        measured.append(columns["representation_change"])
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)


def test_what_cannot_be_measured_is_refused() -> None:
    model, optimizer = setting()
    with pytest.raises(ValueError, match="interval must be 1 or more, got 0"):
        RepresentationProbe(optimizer, model, "conv", interval=0)
    with pytest.raises(ValueError, match=r"layers='stem' matches no Linear or Conv .* conv, head"):
        RepresentationProbe(optimizer, model, ["conv", "stem"], interval=1)
    with pytest.raises(ValueError, match="layers='norm' matches no Linear or Conv"):
        RepresentationProbe(optimizer, model, ["norm"], interval=1)
    with pytest.raises(ValueError, match="layers is empty"):
        RepresentationProbe(optimizer, model, [], interval=1)
    elsewhere = torch.optim.SGD(model.head.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="layers='conv' matches no Linear or Conv"):
        RepresentationProbe(elsewhere, model, ["conv"], interval=1)
    model.conv.weight.full_tensor = None  # what tells a DTensor
    with pytest.raises(ValueError, match="conv is sharded"):
        RepresentationProbe(optimizer, model, ["conv"], interval=1)


def test_a_layer_that_is_never_measured_is_named_once() -> None:
    model, optimizer = setting()
    probe = RepresentationProbe(optimizer, model, "*", interval=2)
    train(model, optimizer, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe.drain()  # two measured steps may have missed it by chance
    train(model, optimizer, 1)
    with pytest.warns(UserWarning, match=r"RepresentationProbe: unused\.weight have not") as caught:
        probe.drain()
    assert len(caught) == 1
    train(model, optimizer, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe.drain()


def test_a_probed_model_is_saved_and_copied_without_its_probe() -> None:
    model, optimizer = setting()
    probe = RepresentationProbe(optimizer, model, "conv", interval=1)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    x = torch.randn(6, 3, 9, 9)
    for twin in (torch.load(file, weights_only=False), copy.deepcopy(model)):
        twin(x)
        assert not probe._inputs
    model(x)
    assert list(probe._inputs) == [model.conv]  # the control
