"""Schedules of every shape: rescaled weights stay in equilibrium where plain ones leave it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smd_hooks import load_runs
from smd_hooks.theory import UpdateRule, equilibrium_norm, rescale_factor
from tests.hooks.runs import TinyModel

timm_optim = pytest.importorskip("timm.optim")

IN_BAND = (0.85, 1.15)
# τ is 25 steps at the top of each falling schedule
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.02, betas=(0.9, 0.95), weight_decay=1.0),
    # a buffer as short as the others': what it holds is to be forgotten in less than τ
    "Lion": lambda p: timm_optim.Lion(p, lr=0.02, betas=(0.9, 0.9), weight_decay=1.0),
}
TOP, END = 300, 450  # 12 τ at the top, then the fall
SCHEDULES: dict[str, list[dict[str, Any]]] = {
    "step": [{"type": "MultiStepLR", "milestones": [TOP], "gamma": 0.1}],
    "cosine": [
        {"type": "CosineAnnealingLR", "begin": TOP, "T_max": END - TOP, "eta_min_ratio": 0.01}
    ],
    "linear": [{"type": "LinearLR", "begin": TOP, "start_factor": 1.0, "end_factor": 0.02}],
}


class PureNoise(Dataset):
    """Images and labels that have nothing to do with each other: gradients never fade."""

    def __len__(self) -> int:
        return 8 * 1000

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        image = torch.randn(3, 8, 8, generator=generator)
        return image, torch.randint(4, (), generator=generator)


def train(
    folder: Path,
    kind: str,
    schedule: list[dict[str, Any]],
    iterations: int,
    rescaled: bool,
    lr: float | None = None,
    weight_decay: float | None = None,
) -> Any:
    model = TinyModel()
    # the classifier stands still: what the conv's gradients come from does not change
    optimizer = OPTIMIZERS[kind]([model.conv.weight])
    given = {"lr": lr, "weight_decay": weight_decay}
    optimizer.param_groups[0].update({k: v for k, v in given.items() if v is not None})
    hooks = [{"type": "SMDHook", "interval": 1}]
    Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=DataLoader(PureNoise(), batch_size=8),
        train_cfg={"by_epoch": False, "max_iters": iterations},
        optim_wrapper=OptimWrapper(optimizer),
        param_scheduler=[{"by_epoch": False, "end": iterations, **each} for each in schedule],
        default_hooks={"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 1000}},
        custom_hooks=hooks + [{"type": "EquilibriumRescaleHook"}] * rescaled,
        default_scope="mmengine",
        log_level="ERROR",
        experiment_name=uuid.uuid4().hex,
    ).train()
    (run,) = load_runs(folder)
    return run


def ratio(run: Any, steps: slice) -> float:
    """RMS of Δ/Δ* over those steps."""
    data = run.predicted.set_index("step").loc[steps]
    squares = (data["angular_update"] / data["equilibrium_angle"]) ** 2
    return float(np.sqrt(squares.mean()))


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_falling_rates(tmp_path: Path, kind: str, schedule: str) -> None:
    plain, rescaled = (
        train(tmp_path / str(r), kind, SCHEDULES[schedule], END, r) for r in (False, True)
    )
    for begin in range(TOP + 10, END - 40, 40):
        assert IN_BAND[0] < ratio(rescaled, slice(begin, begin + 40)) < IN_BAND[1]
    last = slice(END - 40, END)
    assert ratio(plain, last) < 0.7
    # what the whole schedule comes to is what one drop by as much would have come to
    samples = rescaled.predicted.set_index("step")
    rule = UpdateRule.from_json(rescaled.weights["rule"].iloc[0])
    rates = samples["lr"].to_numpy()
    whole = rescale_factor(rule, rates[0] / rates[-1])
    assert samples["rescale"].iloc[-1] == pytest.approx(whole, rel=0.01)
    # and the norm is that of equilibrium, with the driving moment of before the fall
    before = slice(TOP // 3, TOP - 20)
    moment = float(samples.loc[before, "driving_moment"].mean())

    def norm_ratio(run: Any, steps: slice) -> Any:
        data = run.predicted.set_index("step").loc[steps]
        radius = [equilibrium_norm(rule.at(lr, rule.weight_decay), moment) for lr in data["lr"]]
        return data["weight_norm"] / radius

    assert float(norm_ratio(rescaled, before).mean()) == pytest.approx(1, abs=0.05)
    # forty steps of one vector's norm, which fluctuates
    assert float(norm_ratio(rescaled, last).mean()) == pytest.approx(1, abs=0.1)
    assert float(norm_ratio(plain, last).mean()) > 1.4


WARM, RISE = 300, 8  # six τ of 50 steps at a quarter of the rate, and a short warmup from it
PEAK = {"SGD": (0.04, 0.05), "AdamW": (0.04, 1.0), "Lion": (0.04, 1.0)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_warmup_of_weights_that_had_settled(tmp_path: Path, kind: str) -> None:
    schedule = [
        {"type": "ConstantLR", "factor": 0.25, "end": WARM},
        {"type": "LinearLR", "start_factor": 0.25, "begin": WARM, "end": WARM + RISE},
    ]
    after = slice(WARM + RISE // 2, WARM + RISE + 10)
    plain, rescaled = (
        ratio(train(tmp_path / str(r), kind, schedule, WARM + 40, r, *PEAK[kind]), after)
        for r in (False, True)
    )
    assert IN_BAND[0] < rescaled < IN_BAND[1]
    assert plain > 1.25


@pytest.mark.parametrize("start_factor", [1e-4, 0.1])
def test_a_warmup_at_the_start_is_left_to_the_optimizer(
    tmp_path: Path, start_factor: float
) -> None:
    schedule = [
        {"type": "LinearLR", "start_factor": start_factor, "end": 40},
        {"type": "MultiStepLR", "milestones": [50], "gamma": 0.1},
    ]
    run = train(tmp_path, "AdamW", schedule, 60, True)
    samples = run.samples.set_index("step")
    assert (samples["rescale"].loc[:49] == 1).all()
    assert samples["rescale"].loc[50] == pytest.approx(10**-0.5)


def test_a_cosine_may_end_at_0(tmp_path: Path) -> None:
    schedule = [{"type": "CosineAnnealingLR", "T_max": 60}]
    run = train(tmp_path, "AdamW", schedule, 62, True)
    samples = run.samples.set_index("step")
    assert samples["lr"].iloc[-2] == pytest.approx(0, abs=1e-12)
    assert np.isfinite(samples["weight_norm"]).all()
    # to where the norm's eps would begin to matter
    assert 1e-3 < samples["rescale"].iloc[-1] < 0.2
