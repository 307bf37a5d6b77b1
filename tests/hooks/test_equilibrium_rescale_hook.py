from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from smd_hooks import load_runs
from smd_hooks.hooks.equilibrium_rescale_hook import rescale_statistics, rescale_weight
from smd_hooks.measure.probe import RESCALE_KEY
from smd_hooks.theory import SGDRule, rescale_factor
from tests.hooks.runs import TinyModel, tiny_data, tiny_runner


def batch() -> tuple[Tensor, Tensor]:
    images, labels = zip(*tiny_data()[:16], strict=True)
    return torch.stack(images), torch.stack(labels)


def test_the_function_changes_neither_in_train_nor_in_eval_mode() -> None:
    model, (x, y) = TinyModel().double(), batch()
    for _ in range(3):
        model(x.double(), y)
    before = {}
    for mode in (True, False):
        model.train(mode)
        model.bn.momentum = 0.0
        before[mode] = model(x.double(), y).detach()
    with torch.no_grad():
        rescale_weight(model.conv.weight, {}, 0.5)
        rescale_statistics(model.conv, model.bn, 0.5)
    model.bn.eps *= 0.25  # eps is not part of what is rescaled
    for mode in (True, False):
        model.train(mode)
        assert torch.allclose(model(x.double(), y), before[mode], rtol=1e-9)


def test_the_momentum_buffer_takes_the_inverse() -> None:
    weight, state = torch.ones(2, 2), {"momentum_buffer": torch.ones(2, 2)}
    rescale_weight(weight, state, 0.5)
    rescale_weight(weight, state, 0.5)
    assert weight[0, 0] == 0.25
    assert state["momentum_buffer"][0, 0] == 4.0
    assert state[RESCALE_KEY] == 0.25


def test_a_drop_rescales_the_conv_and_nothing_else(tmp_path: Path) -> None:
    runner = tiny_runner(
        tmp_path,
        [{"type": "SMDHook", "interval": 1}, {"type": "EquilibriumRescaleHook"}],
        milestones=(20,),
    )
    runner.train()
    (run,) = load_runs(tmp_path)
    factor = rescale_factor(SGDRule(0.1, 0.01), 10)
    for name, scale in (("conv.weight", factor), ("fc.weight", 1.0)):
        index = run.weights["parameter"].tolist().index(name)
        data = run.samples[run.samples["weight"] == index].set_index("step")
        assert data["lr"].loc[19] == pytest.approx(0.1)
        assert data["lr"].loc[20] == pytest.approx(0.01)
        jump = data["weight_norm"].loc[20] / data["weight_norm"].loc[19]
        # one ordinary step lies between the two samples
        assert jump == pytest.approx(scale, rel=0.03)
        assert data["rescale"].loc[20] == pytest.approx(scale)
    assert run.scores["trajectory_error"].iloc[0] < 0.05


def test_the_factor_survives_a_resume(tmp_path: Path) -> None:
    hooks = [{"type": "SMDHook", "interval": 1}, {"type": "EquilibriumRescaleHook"}]
    tiny_runner(tmp_path, hooks, iterations=40, milestones=(15,)).train()
    next(tmp_path.glob("*_*/smd")).parent.rename(tmp_path / "20000101_000000")
    resumed = tiny_runner(
        tmp_path, hooks, 60, milestones=(15,), resume=True, load_from=str(tmp_path / "iter_40.pth")
    )
    resumed.train()
    (run,) = load_runs(tmp_path)
    conv = run.samples[run.samples["weight"] == 0].set_index("step")
    assert conv["rescale"].loc[59] == pytest.approx(10**-0.25)
    assert conv["weight_norm"].loc[40] == pytest.approx(conv["weight_norm"].loc[39], rel=0.01)


def test_a_checkpoint_between_the_drop_and_the_next_step_loses_nothing(tmp_path: Path) -> None:
    hooks = [{"type": "SMDHook", "interval": 1}, {"type": "EquilibriumRescaleHook"}]
    tiny_runner(tmp_path, hooks, iterations=40, milestones=(20,)).train()
    next(tmp_path.glob("*_*/smd")).parent.rename(tmp_path / "20000101_000000")
    checkpoint = str(tmp_path / "iter_20.pth")
    tiny_runner(tmp_path, hooks, 60, milestones=(20,), resume=True, load_from=checkpoint).train()
    (run,) = load_runs(tmp_path)
    conv = run.samples[run.samples["weight"] == 0].set_index("step")
    assert conv["lr"].loc[20] == pytest.approx(0.01)
    assert conv["rescale"].loc[20] == 1  # the resumed run is still looking
    assert conv["rescale"].loc[59] == pytest.approx(10**-0.25)
