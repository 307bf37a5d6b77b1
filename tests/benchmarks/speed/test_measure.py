from __future__ import annotations

import functools
import gc
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision.models
from torch import nn

from benchmarks.__main__ import main
from benchmarks.speed import measure
from benchmarks.speed.measure import share_of_training
from benchmarks.speed.methods import (
    CockpitLogger,
    LeanLogger,
    PeerLogger,
    TorchCopy,
    WeightCopy,
    how_sums_are_done,
    matrices,
)
from benchmarks.speed.parameter_sets import SETS, random_parameters
from benchmarks.speed.stopwatch import (
    Named,
    Stopwatch,
    between_marks,
    memory_kept,
    memory_peaks,
    peak_memory,
)
from benchmarks.speed.timing import spread, verdict
from smd_hooks.measure import c_sums, fused

CPU = torch.device("cpu")
TINY = {"a.weight": (64, 32, 3, 3), "a.bias": (64,), "b.weight": (10, 64)}


class SlowSGD(torch.optim.SGD):
    """A step that takes a fifth of a second and eight megabytes of its own."""

    def step(self, closure: Any = None) -> None:
        time.sleep(0.2)
        torch.zeros(2_000_000)
        super().step(closure)


class SlowHooks:
    def __init__(self, optimizer: torch.optim.Optimizer, named: Named) -> None:
        self.handles = [
            optimizer.register_step_pre_hook(self.work),
            optimizer.register_step_post_hook(self.work),
        ]

    def work(self, *_: Any) -> None:
        time.sleep(0.01)
        torch.zeros(500_000)

    def detach(self) -> None:
        for handle in self.handles:
            handle.remove()


def parameters_and(optimizer: type[torch.optim.SGD]) -> tuple[Named, torch.optim.SGD]:
    named = random_parameters(TINY, CPU)
    return named, optimizer([p for _, p in named], lr=1e-3)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [("resnet50", 25_557_032), ("mask-rcnn", 44_454_513), ("gpt2-124m", 124_439_808)],
)
def test_sets_have_the_parameters_of_the_published_networks(model: str, parameters: int) -> None:
    assert sum(math.prod(shape) for shape in SETS[model]().values()) == parameters


def test_marks_leave_the_optimizers_own_step_out() -> None:
    named, optimizer = parameters_and(SlowSGD)
    hooks, whole = Stopwatch(CPU), Stopwatch(CPU)
    with between_marks(optimizer, named, SlowHooks, hooks.mark, hooks.mark):
        whole.mark()
        optimizer.step()
        whole.mark()
    assert 0.02 <= hooks.read() < 0.2 <= whole.read()
    whole.mark()
    optimizer.step()  # everything is off again
    whole.mark()
    assert hooks.read() == 0


def test_memory_is_what_the_hooks_hold_and_not_what_the_step_needs() -> None:
    named, optimizer = parameters_and(SlowSGD)
    assert peak_memory(optimizer, named, SlowHooks, CPU) == 2_000_000


def test_memory_counts_what_is_kept_from_construction_on() -> None:
    named, optimizer = parameters_and(torch.optim.SGD)
    copies = 4 * sum(weight.numel() for weight in matrices(named))
    assert peak_memory(optimizer, named, WeightCopy, CPU) == copies
    assert peak_memory(optimizer, named, TorchCopy, CPU) == copies
    # beside the clones one product; torch's cosine makes two unit vectors more
    assert copies < peak_memory(optimizer, named, LeanLogger, CPU) < 2.5 * copies
    assert 2.5 * copies < peak_memory(optimizer, named, PeerLogger, CPU) < 4.1 * copies


def test_memory_kept_is_what_outlives_the_work() -> None:
    before = torch.zeros(1000)

    def work() -> list[torch.Tensor]:
        passing = torch.zeros(5000)
        before.add_(passing.sum())
        return [torch.zeros(300), torch.zeros(2, dtype=torch.float64)]

    for result, kept in memory_kept([work, work], CPU):
        assert sum(tensor.numel() for tensor in result) == 302
        assert kept == 1216


def test_garbage_in_cycles_counts_as_no_work_s_memory() -> None:
    def cycle() -> None:
        ring: list[Any] = [torch.zeros(7000)]
        ring.append(ring)

    def work() -> torch.Tensor:
        gc.collect()  # as may happen at any time
        cycle()  # its own
        return torch.zeros(300)

    gc.disable()  # that nothing be collected before its time
    try:
        cycle()
        assert [kept for _, kept in memory_kept([work, work], CPU)] == [1200, 1200]
        cycle()
        assert memory_peaks([work, work], CPU) == [29_200, 29_200]
    finally:
        gc.enable()


def test_memory_peaks_are_what_the_work_needs_beside_what_was_there() -> None:
    kept: list[torch.Tensor] = []

    def work(elements: int) -> None:
        passing = torch.zeros(elements)
        kept.append(passing.sum())
        del passing
        torch.zeros(elements // 2)

    works = [functools.partial(work, elements) for elements in (5000, 300, 70_000)]
    assert memory_peaks(works, CPU) == [4 * 5001, 4 * 301, 4 * 70_001]


@pytest.mark.parametrize("logger", [PeerLogger, LeanLogger])
@pytest.mark.parametrize(("lr", "resolved"), [(1e-1, True), (1e-6, False)])
def test_peers_log_angles_as_peers_do(logger: type[PeerLogger], lr: float, resolved: bool) -> None:
    named = random_parameters({"w": (200, 300)}, CPU)
    weight = named[0][1]
    optimizer = torch.optim.SGD([weight], lr=lr)
    peer, before = logger(optimizer, named), weight.detach().clone()
    optimizer.step()
    assert weight.grad is not None
    old, new = before.double().flatten(), weight.detach().double().flatten()
    step = new - old
    across = step - (step @ old) / (old @ old) * old
    exact = math.atan2(float(across.norm()), float(new @ old / old.norm()))
    angle, weight_norm, gradient_norm = peer.rows[0]
    assert weight_norm == pytest.approx(float(old.norm()), rel=1e-4)
    assert gradient_norm == pytest.approx(float(weight.grad.double().norm()), rel=1e-4)
    # acos of a float32 cosine knows no small angles
    assert (angle == pytest.approx(exact, rel=1e-3)) is resolved


def test_command_reports_each_optimizer_beside_its_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SETS, "tiny", lambda: TINY)
    file = tmp_path / "new" / "figures.json"
    command = ["speed", "measure", "--model", "tiny", "--device", "cpu", "--rounds", "3"]
    assert main([*command, "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| tiny |") == 2 + 5  # optimizers, and forms of the pass
    assert "`python -m benchmarks speed measure --model tiny --device cpu --threads" in printed
    assert "on a GPU: not measured" in printed
    assert "the probe's sums: in C" in printed
    figures = json.loads(file.read_text())
    assert [cost["optimizer"] for cost in figures["costs"]] == ["SGD", "AdamW"]
    for cost in figures["costs"]:
        assert cost["measured"] == 64 * 32 * 9 + 640
        assert set(cost["seconds"]) == set(measure.methods())
        assert all(len(s) == 3 and min(s) > 0 for s in cost["seconds"].values())
        assert min(cost["memory"].values()) >= 4 * cost["measured"]


@pytest.mark.parametrize("timing", ["measure", "optim"])
@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--rounds", "0"], "--rounds 0"),
        (["--threads", "0"], "--threads 0"),
        pytest.param(
            ["--device", "cuda"],
            "no GPU here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_unusable_options_are_one_line(
    timing: str, options: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["speed", timing, *options]) == 2
    error = capsys.readouterr().err
    assert what in error
    assert error.count("\n") == 1


def test_a_probe_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert how_sums_are_done(CPU) == "in C"
    monkeypatch.setattr(c_sums, "load", lambda: None)
    assert how_sums_are_done(CPU).startswith("in torch")
    monkeypatch.setattr(fused, "load_triton", lambda dtype, device: None)
    assert how_sums_are_done(torch.device("cuda")) == "one weight after the other, in torch"
    monkeypatch.setattr(fused, "load_triton", lambda dtype, device: fused.one_by_one)
    assert how_sums_are_done(torch.device("cuda")) == "in Triton"


def test_compiling_is_over_before_the_timed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = c_sums.load.__wrapped__, []

    def slow() -> Any:
        calls.append(time.sleep(0.5))
        return original()

    monkeypatch.setattr(c_sums, "load", functools.cache(slow))
    monkeypatch.setitem(SETS, "tiny", lambda: TINY)
    cost = measure.cost_of_a_step("tiny", "SGD", CPU, rounds=3)
    assert len(calls) == 1
    assert max(cost.seconds["probe"]) < 0.25


def test_share_of_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(**_: Any) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 1000))

    monkeypatch.setattr(torchvision.models, "resnet50", small)
    shares = share_of_training(CPU, batch=2, steps=3, side=8)
    assert len(shares) == 3
    assert all(share > 0 for share in shares)


@pytest.mark.parametrize("copier", [WeightCopy, TorchCopy])
def test_copies_hold_the_weights_before_the_step(copier: type[WeightCopy]) -> None:
    named, optimizer = parameters_and(torch.optim.SGD)
    before = [weight.detach().clone() for weight in matrices(named)]
    copy = copier(optimizer, named)
    optimizer.step()
    assert all(map(torch.equal, copy._buffers, before))
    assert not any(map(torch.equal, matrices(named), before))


def test_the_floor_is_what_moving_the_bytes_takes() -> None:
    """Six floats a weight, where a copy moves two."""
    seconds = {"probe": [6.0, 3.0], "peer": [9.0, 9.0], "copy": [1.0, 1.0]}
    cost = measure.Cost("net", "SGD", 10, seconds, 0.0, {})
    assert cost.ratios("floor") == [2.0, 1.0]
    assert cost.ratios("peer") == pytest.approx([2 / 3, 1 / 3])


def test_cockpit_is_timed_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class UpdateSize:
        def __init__(self, schedule: Callable[[int], bool]) -> None:
            assert schedule(0)
            assert not schedule(-1)
            self.steps: list[int] = []

        def track(self, step: int, params: list[torch.Tensor], loss: None) -> None:
            self.steps.append(step)
            assert [p.shape for p in params] == [(64, 32, 3, 3), (10, 64)]

    quantities = ModuleType("cockpit.quantities")
    quantities.UpdateSize = UpdateSize  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cockpit", ModuleType("cockpit"))
    monkeypatch.setitem(sys.modules, "cockpit.quantities", quantities)
    assert "cockpit" in measure.methods.__wrapped__()
    named, optimizer = parameters_and(torch.optim.SGD)
    logger = CockpitLogger(optimizer, named)
    optimizer.step()
    optimizer.step()
    logger.detach()
    optimizer.step()
    assert logger._quantity.steps == [0, 1]
    monkeypatch.setitem(sys.modules, "cockpit.quantities", None)
    assert "cockpit" not in measure.methods.__wrapped__()


def test_a_limit_is_kept_by_the_median() -> None:
    assert spread([0.1, 0.2, 0.3], 10) == "2 (1.2–2.8)"
    assert verdict([0.4, 0.5, 9.0], 0.5) == "holds"
    assert verdict([0.1, 0.6, 0.6], 0.5) == "FAILS"
