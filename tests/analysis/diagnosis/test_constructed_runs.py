"""Small nets, really trained so that it is known what is wrong with them; and one healthy one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from smd_hooks.analysis import Run, agreement_table, diagnose, load_runs, predict, score
from smd_hooks.analysis.diagnosis.causes import (
    DRIFT,
    IN_EQUILIBRIUM,
    NOT_INVARIANT,
    OFF_THE_LAW,
    RELAXING,
    ROUNDING,
)
from smd_hooks.analysis.diagnosis.summary import summarize
from smd_hooks.hooks.recorder import Recorder
from smd_hooks.records import RunState, write_state
from tests.analysis.agreement.test_fast_agreement import assert_same
from tests.optim.digits import network

INVARIANT = ["0.weight", "4.weight", "9.weight"]
STEPS = 600
Batches = Iterator[tuple[Tensor, Tensor]]


def noisy(size: int = 32) -> Batches:
    """Ten patterns in noise; three labels in ten are others at each draw."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(10, 1, 8, 8, generator=generator)
    while True:
        labels = torch.randint(10, (size,), generator=generator)
        images = patterns[labels] + 2.0 * torch.randn(size, 1, 8, 8, generator=generator)
        others = torch.randint(10, (size,), generator=generator)
        yield images, torch.where(torch.rand(size, generator=generator) < 0.3, others, labels)


def always_the_same() -> Batches:
    """One batch that can be learned to the end: nothing is left of its gradients."""
    generator = torch.Generator().manual_seed(1)
    patterns, labels = torch.randn(10, 1, 8, 8, generator=generator), torch.arange(10).repeat(5)
    images = patterns[labels] + 0.3 * torch.randn(50, 1, 8, 8, generator=generator)
    while True:
        yield images, labels


def groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]


def sgd(model: nn.Module, decay: float) -> torch.optim.Optimizer:
    """τ is 0.025/(lr · decay) steps: at lr .1 and decay .005, fifty."""
    return torch.optim.SGD(groups(model, decay), lr=0.1, momentum=0.9)


def trained(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    steps: int = STEPS,
    before: Callable[[int], None] = lambda step: None,
) -> Run:
    """Train as the hook sees it, and read the run back; ``before`` is called at each step."""
    torch.set_num_threads(1)
    launch = folder / "run" / "20260101_000000"
    recorder = Recorder(model, {"": optimizer}, launch, 1, False, {}, None, {"first_iteration": 0})
    dtype = next(model.parameters()).dtype
    for step, (images, labels) in zip(range(steps), batches, strict=False):
        before(step)
        optimizer.zero_grad()
        logits = model(images.to(dtype)).float()
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        recorder.look()
        recorder.drain_when_due()
    recorder.close(look=True)
    write_state(launch, RunState("finished", steps, steps))
    return load_runs(folder)[0]


def causes_of(diagnosis: pd.DataFrame) -> pd.DataFrame:
    return diagnosis.set_index("parameter").loc[INVARIANT]


def verdict_of(run: Run) -> str:
    return str(agreement_table([run])["verdict"].iloc[0])


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    model = network()
    run = trained(tmp_path_factory.mktemp("healthy"), model, sgd(model, 0.005), noisy())
    assert len(run.samples) == 4 * STEPS
    assert_same(run.samples, run.weights)  # the fast scores are the readable ones
    return run


def test_a_healthy_run_has_none_of_them(healthy: Run) -> None:
    found = causes_of(healthy.diagnosis)
    assert set(found["cause"]) == {IN_EQUILIBRIUM}
    assert verdict_of(healthy).startswith("in equilibrium")
    # but for the classifier, which no norm follows
    assert healthy.diagnosis.set_index("parameter").loc["12.weight", "cause"] == NOT_INVARIANT


def test_stopped_too_early_after_a_drop(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model, 0.005)

    def drop(step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.1 if step < 400 else 0.01

    run = trained(tmp_path, model, optimizer, noisy(), before=drop)
    found = causes_of(run.diagnosis)
    assert set(found["cause"]) == {RELAXING}
    # 200 steps of 500
    assert found["value"].to_numpy() == pytest.approx(0.4, abs=0.01)
    assert verdict_of(run).startswith("below equilibrium: 0.4 relaxation times")


def test_gradients_that_vanish(tmp_path: Path) -> None:
    model = network()
    run = trained(tmp_path, model, sgd(model, 0.002), always_the_same())
    found, scores = causes_of(run.diagnosis), run.scores.set_index("parameter")
    assert (scores.loc[INVARIANT, "angle_ratio"] < 0.1).all()
    assert set(found["cause"]) == {DRIFT}
    # e-fold per relaxation time, or thereabouts: the law's own error is not the cause
    assert found["value"].between(-3, -0.5).all()
    assert verdict_of(run).startswith("below equilibrium by ")
    assert verdict_of(run).endswith(f": {DRIFT} in 3 of 3 such layers")


@pytest.mark.parametrize("frozen_at", [0, 300])
def test_frozen_batch_norms(tmp_path: Path, frozen_at: int) -> None:
    model = network()

    def freeze(step: int) -> None:
        for module in model.modules():
            if step >= frozen_at and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    run = trained(tmp_path, model, sgd(model, 0.005), noisy(), steps=400, before=freeze)
    found = causes_of(run.diagnosis)
    assert set(found["cause"]) == {NOT_INVARIANT}
    assert found["detail"].str.contains("eval mode").all()
    assert verdict_of(run).startswith("nothing is scale-invariant: its BatchNorm is in eval mode")
    # what was measured before stays what it was
    assert len(run.predicted) == len(INVARIANT) * frozen_at


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_too_coarse_for_their_steps(tmp_path: Path, dtype: torch.dtype) -> None:
    lr, decay = 2e-5, 0.05
    model = network()
    with torch.no_grad():  # at AdamW's equilibrium norm: nothing to relax from far
        for weight in (p for p in model.parameters() if p.ndim > 1):
            weight *= math.sqrt(lr / (2 * decay) * weight.numel()) / weight.norm()
    model = model.to(dtype)
    optimizer = torch.optim.AdamW(groups(model, decay), lr=lr, betas=(0.9, 0.99))
    run = trained(tmp_path, model, optimizer, noisy(), steps=300)
    found = causes_of(run.diagnosis)
    assert_same(run.samples, run.weights)
    if dtype == torch.float32:  # control: the same with bits enough
        assert ROUNDING not in set(found["cause"])
        return
    assert set(found["cause"]) == {ROUNDING}
    target = run.predicted["equilibrium_angle"].iloc[-1]
    assert (found["value"] > 2 * target).all()
    assert verdict_of(run).endswith(f": {ROUNDING} in 3 of 3 such layers")


def judged(samples: pd.DataFrame, weights: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    predicted = predict(samples, weights)
    scores = score(predicted, weights)
    diagnosis = diagnose(predicted, scores, weights)
    verdict = summarize(scores, weights, measured=True, causes=diagnosis)["verdict"]
    return causes_of(diagnosis), str(verdict)


@pytest.mark.parametrize(
    "wrong", [{"momentum": 0.0}, {"momentum": 0.5}, {"decoupled": True}], ids=json.dumps
)
def test_a_rule_that_is_not_the_optimizers(healthy: Run, wrong: dict[str, Any]) -> None:
    rules = [rule and {**rule, **wrong} for rule in healthy.weights["rule"]]
    found, verdict = judged(healthy.samples, healthy.weights.assign(rule=rules))
    assert set(found["cause"]) == {OFF_THE_LAW}
    assert (found["value"] > 0.1).all()
    assert verdict.endswith(f": {OFF_THE_LAW} in 3 of 3 such layers")


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_a_weight_decay_that_is_not_the_optimizers(healthy: Run, factor: float) -> None:
    decay = healthy.samples["weight_decay"] * factor
    found, verdict = judged(healthy.samples.assign(weight_decay=decay), healthy.weights)
    assert set(found["cause"]) == {OFF_THE_LAW}
    assert verdict.endswith(f": {OFF_THE_LAW} in 3 of 3 such layers")
