from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smd_hooks.measure.gradient_noise import GradientNoiseProbe
from smd_hooks.theory.gradient_noise import WINDOW, two_batch_estimate

from .host_reads import NoHostRead
from .processes import on_two_processes

BATCH = 8
LR = 0.1


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 3)).double()


def batches(count: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(BATCH, 10, generator=generator, dtype=torch.float64),
            torch.randint(3, (BATCH,), generator=generator),
        )
        for _ in range(count)
    ]


def accumulate(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: list[tuple[Tensor, Tensor]],
    micro_batches: int,
    factor: float | None = None,
    before_step: Callable[[], object] = lambda: None,
) -> None:
    """One step per ``micro_batches`` of the data; ``factor`` None divides as MMEngine does."""
    factor = 1 / micro_batches if factor is None else factor
    for i, (x, y) in enumerate(data, start=1):
        last = i % micro_batches == 0
        unsynced = getattr(model, "no_sync", nullcontext) if not last else nullcontext
        with unsynced():
            (nn.functional.cross_entropy(model(x), y) * factor).backward()
        if last:
            before_step()
            optimizer.step()
            optimizer.zero_grad()


def probed(
    lr: float = LR, interval: int = 1, model: nn.Module | None = None, **options: Any
) -> tuple[nn.Module, torch.optim.Optimizer, GradientNoiseProbe]:
    model = network() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    probe = GradientNoiseProbe(optimizer, model.named_parameters(), "*", interval, BATCH, **options)
    return model, optimizer, probe


def of(columns: dict[str, np.ndarray], parameter: str, column: str) -> np.ndarray:
    return columns[column][columns["parameter"] == parameter]


def test_it_equals_the_ratio_of_per_example_gradients() -> None:
    """At frozen weights, drawn 300 times, of a population whose φ is known."""
    model, optimizer, probe = probed(lr=0.0)
    x = torch.cat([x for x, _ in batches(32)])
    y = (x[:, 0] > 0).long()
    per_example: dict[str, list[Tensor]] = {"0.weight": [], "2.weight": []}
    for i in range(len(x)):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        weights = [model.get_parameter(name) for name in per_example]
        for name, gradient in zip(per_example, torch.autograd.grad(loss, weights), strict=True):
            per_example[name].append(gradient.flatten())

    generator = torch.Generator().manual_seed(3)
    drawn = torch.randint(len(x), (300 * 4, BATCH), generator=generator)
    accumulate(model, optimizer, [(x[rows], y[rows]) for rows in drawn], micro_batches=4)
    columns = probe.drain()
    for name, gradients in per_example.items():
        stacked = torch.stack(gradients)
        mean = stacked.mean(0)
        signal, noise = float(mean.square().sum()), float((stacked - mean).square().sum(1).mean())
        assert 4 * BATCH * signal / noise >= 1
        signals, noises = of(columns, name, "signal"), of(columns, name, "noise")
        assert len(signals) == 300
        assert signals.mean() == pytest.approx(signal, rel=0.1)
        assert signals.mean() / noises.mean() == pytest.approx(signal / noise, rel=0.1)
        last = signals[-WINDOW:].sum() / noises[-WINDOW:].sum()
        assert of(columns, name, "signal_to_noise")[-1] == pytest.approx(last)
        assert of(columns, name, "critical_batch_size")[-1] == pytest.approx(1 / last)


def reference(
    data: list[tuple[Tensor, Tensor]], micro_batches: int, small_scale: float = 1.0
) -> list[tuple[float, float]]:
    """Signal and noise of 0.weight per step, from gradients that are asked for one by one."""
    model, estimates = network(), []
    parameters = list(model.parameters())
    for start in range(0, len(data), micro_batches):
        gradients = [
            torch.autograd.grad(nn.functional.cross_entropy(model(x), y), parameters)
            for x, y in data[start : start + micro_batches]
        ]
        means = [torch.stack(parts).mean(0) for parts in zip(*gradients, strict=True)]
        small = sum(float(g[0].square().sum()) for g in gradients) / micro_batches * small_scale**2
        large = float(means[0].square().sum())
        estimates.append(two_batch_estimate(small, large, BATCH, BATCH * micro_batches))
        with torch.no_grad():
            for parameter, mean in zip(parameters, means, strict=True):
                parameter -= LR * mean
    return estimates


def test_each_step_is_what_separate_gradients_give() -> None:
    model, optimizer, probe = probed()
    accumulate(model, optimizer, batches(15), micro_batches=3)
    columns = probe.drain()
    assert columns["step"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert set(columns["parameter"]) == {"0.weight", "2.weight"}
    signal, noise = zip(*reference(batches(15), 3), strict=True)
    assert of(columns, "0.weight", "signal") == pytest.approx(signal, rel=1e-10)
    assert of(columns, "0.weight", "noise") == pytest.approx(noise, rel=1e-10)
    # control: micro-batches' gradients taken as they come, divided by 3
    _, noise = zip(*reference(batches(15), 3, small_scale=1 / 3), strict=True)
    assert max(noise) < 0


def test_the_ratios_do_not_depend_on_scaling_and_clipping() -> None:
    model, optimizer, probe = probed(lr=0.0)
    accumulate(model, optimizer, batches(12), micro_batches=4)
    plain = probe.drain()

    def clip() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)

    for factor, unit in ((1.0, 4.0), (1024 / 4, 1024.0)):  # undivided; a scaler's
        model, optimizer, probe = probed(lr=0.0)
        accumulate(model, optimizer, batches(12), 4, factor, before_step=clip)
        columns = probe.drain()
        for name in ("signal_to_noise", "critical_batch_size"):
            assert columns[name] == pytest.approx(plain[name], rel=1e-9, nan_ok=True)
        for name in ("signal", "noise"):
            assert columns[name] == pytest.approx(unit**2 * plain[name], rel=1e-9)
    assert np.isfinite(plain["signal_to_noise"]).any()


def test_gradients_that_are_only_asked_for_are_no_micro_batches() -> None:
    model, optimizer, probe = probed()
    for i, (x, y) in enumerate(batches(6), start=1):
        loss = nn.functional.cross_entropy(model(x), y) / 3
        torch.autograd.grad(loss, [model[0].weight], retain_graph=True)
        loss.backward()
        if i % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()
    noise = [noise for _, noise in reference(batches(6), 3)]
    assert of(probe.drain(), "0.weight", "noise") == pytest.approx(noise, rel=1e-10)


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_gradient_scaler_skips(fused: bool, to_none: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    probe = GradientNoiseProbe(optimizer, model.named_parameters(), "*", 1, BATCH)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    data = batches(4)
    for step, overflow in enumerate((False, True, False)):
        for x, y in data[:2] if step == 0 else data[2:]:
            loss = nn.functional.cross_entropy(model(x), y) / 2
            scaler.scale(loss * (math.inf if overflow else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=to_none)
    columns = probe.drain()
    noise = of(columns, "0.weight", "noise")
    wanted = [16 * reference(data, 2)[0][1], 4 * reference(data, 2)[1][1]]  # its scale halved
    if not to_none and not fused:
        # nothing shows where the step after the overflow began: it is left out
        wanted = wanted[:1]
    assert noise == pytest.approx(wanted, rel=1e-10)
    assert of(columns, "0.weight", "step").tolist() == [0, 1][: len(wanted)]


def test_one_micro_batch_alone_is_told_so() -> None:
    model, optimizer, probe = probed()
    with pytest.warns(UserWarning, match="does not show its noise; accumulate gradients"):
        accumulate(model, optimizer, batches(2), micro_batches=1)
    assert probe.drain()["noise"].tolist() == []


def test_measuring_changes_nothing() -> None:
    plain = network()
    accumulate(plain, torch.optim.SGD(plain.parameters(), lr=0.1), batches(12), 2)
    model, optimizer, _ = probed(interval=2)
    accumulate(model, optimizer, batches(12), 2)
    assert all(
        torch.equal(*pair) for pair in zip(model.parameters(), plain.parameters(), strict=True)
    )


def test_nothing_is_read_on_the_host_before_draining() -> None:
    model, optimizer, probe = probed()
    with NoHostRead():
        accumulate(model, optimizer, batches(4), 2)
        with pytest.raises(AssertionError, match="read on the host"):
            model[0].weight.norm().item()
    assert len(probe) == 2


def test_interval_a_resumed_count_and_detaching() -> None:
    model, optimizer, probe = probed(interval=4, first_step=10)
    accumulate(model, optimizer, batches(20), micro_batches=2)
    assert len(probe) == 2
    assert of(probe.drain(), "0.weight", "step").tolist() == [12, 16]
    assert len(probe.drain()["step"]) == 0
    probe.detach()
    accumulate(model, optimizer, batches(20), micro_batches=2)
    assert (len(probe), probe.step) == (0, 20)


def test_parameters_without_a_gradient_leave_no_rows() -> None:
    model, optimizer, probe = probed()
    model[0].weight.requires_grad_(False)
    accumulate(model, optimizer, batches(4), micro_batches=2)
    assert set(probe.drain()["parameter"]) == {"2.weight"}


def test_a_parameter_that_never_has_a_gradient_is_named_once() -> None:
    model, optimizer, probe = probed()
    model[0].weight.requires_grad_(False)
    accumulate(model, optimizer, batches(6), micro_batches=2)
    with pytest.warns(UserWarning, match=r"GradientNoiseProbe: 0\.weight have had no gradient"):
        probe.drain()
    accumulate(model, optimizer, batches(6), micro_batches=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe.drain()


def test_steps_without_any_gradient_leave_no_rows() -> None:
    model, optimizer, probe = probed()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    accumulate(model, optimizer, batches(2), micro_batches=2)
    assert probe.drain()["step"].tolist() == [1, 1]


def test_under_torch_compile() -> None:
    noise = []
    for compiled in (False, True):
        model, optimizer, probe = probed()
        runner = torch.compile(model, backend="aot_eager") if compiled else model
        accumulate(runner, optimizer, batches(6), micro_batches=3)
        noise.append(probe.drain()["noise"])
    assert len(noise[0]) == 4
    assert noise[1] == pytest.approx(noise[0], rel=1e-10)


def test_what_cannot_be_measured_is_refused() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def probe(layers: list[str], interval: int = 1, batch_size: int = 1) -> None:
        GradientNoiseProbe(optimizer, model.named_parameters(), layers, interval, batch_size)

    with pytest.raises(ValueError, match="interval must be 1 or more, got 0"):
        probe(["0"], interval=0)
    with pytest.raises(ValueError, match="batch_size must be 1 or more, got -2"):
        probe(["0"], batch_size=-2)
    with pytest.raises(ValueError, match=r"layers='head' matches no layer .* there are: 0, 2"):
        probe(["0", "head"])
    model[0].requires_grad_(False)
    with pytest.raises(ValueError, match="layers='0' matches no layer"):
        probe(["0"])
    model[2].weight.full_tensor = None  # what tells a DTensor
    with pytest.raises(ValueError, match=r"2\.weight is sharded"):
        probe(["2"])


# -------------------------------------------------------------------------- two processes


def _one_process(rank: int) -> list[float]:
    parallel = nn.parallel.DistributedDataParallel(network())
    model, optimizer, probe = probed(model=parallel.module)
    mine = batches(12)[rank::2]  # of each step's four micro-batches two
    accumulate(parallel, optimizer, mine, 2, before_step=lambda: _clip(model))
    found: list[float] = probe.drain()["noise"].tolist()
    return found


def _clip(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_processes_see_what_accumulation_on_one_sees(tmp_path: Path) -> None:
    of_ranks = on_two_processes(tmp_path / "two", _one_process)
    model, optimizer, probe = probed()
    accumulate(model, optimizer, batches(12), 4, before_step=lambda: _clip(model))
    wanted = probe.drain()["noise"]
    assert len(wanted) == 6
    for found in of_ranks:
        assert found == pytest.approx(wanted, rel=1e-10)
    # control: what one process has of the data is another estimate
    model, optimizer, probe = probed()
    accumulate(model, optimizer, batches(12)[::2], 2)
    assert probe.drain()["noise"] != pytest.approx(wanted, rel=1e-2)


UNUSED = 2  # the step in which the second process does not use the watched layer


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.first, self.second = (nn.Linear(10, 3).double() for _ in range(3))

    def forward(self, x: Tensor, both: bool) -> Tensor:
        loss = self.first(x).cos().mean() + self.trunk(x).sin().mean()
        return loss + self.second(x).square().mean() if both else loss


def _one_head_is_not_used(rank: int) -> dict[str, list[float]]:
    parallel = nn.parallel.DistributedDataParallel(Heads(), find_unused_parameters=True)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=LR)
    named = parallel.module.named_parameters()
    probe = GradientNoiseProbe(optimizer, named, "second", 1, BATCH)
    for step, (x, _) in enumerate(batches(8)[rank::2]):
        parallel(x, both=rank == 0 or step != UNUSED).backward()
        optimizer.step()
        optimizer.zero_grad()
    columns = probe.drain()
    return {name: columns[name].tolist() for name in ("step", "signal", "noise")}


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_a_layer_that_one_process_does_not_use(tmp_path: Path) -> None:
    """That process's gradient is zero, as where accumulation meets such a micro-batch."""
    model = Heads()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    probe = GradientNoiseProbe(optimizer, model.named_parameters(), "second", 1, BATCH)
    data = batches(8)
    for step in range(4):
        for rank in range(2):
            x = data[2 * step + rank][0]
            factor = 0.0 if (rank, step) == (1, UNUSED) else 1.0
            loss = model(x, both=False) + factor * model.second(x).square().mean()
            (loss / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    wanted = probe.drain()
    for told in on_two_processes(tmp_path, _one_head_is_not_used):
        assert told["step"] == [0, 1, UNUSED, 3]
        for name in ("signal", "noise"):
            assert told[name] == pytest.approx(wanted[name], rel=1e-9)
