from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from smd_hooks import load_runs
from smd_hooks.hooks.equilibrium_rescale_hook import (
    EPS_SHARE,
    eps_would_matter,
    rescale_statistics,
    rescale_weight,
)
from smd_hooks.measure.probe import RESCALE_KEY
from smd_hooks.measure.verdict import Z2_LIMIT
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


@pytest.mark.parametrize("k", [2, 10, 100])
@pytest.mark.parametrize("share", [1e-3, EPS_SHARE, 0.3])
def test_rescaling_costs_half_a_share_of_what_it_saves(k: float, share: float) -> None:
    factor = k**-0.25
    norm = nn.BatchNorm2d(8, affine=False).double()
    before = torch.randn(32, 8, 6, 6, dtype=torch.float64)
    before = before / before.std((0, 2, 3), correction=0, keepdim=True)
    norm.eps = share * factor**2  # the variance is 1
    old, new = norm(before), norm(before * factor)
    change = 1 - float(new.norm() / old.norm())
    assert change == pytest.approx(1 - math.sqrt((1 + share * factor**2) / (1 + share)), rel=1e-9)
    # the next order is s(3 + c²)/4 of it
    assert change / (1 - factor**2) == pytest.approx(share / 2, rel=share)


def z2_with_eps(share: float, seed: int) -> float:
    """Mean z² of a net's last conv, with such a share of eps in the variance at each norm."""
    torch.manual_seed(seed)
    images, labels = torch.randn(128, 3, 10, 10), torch.randint(0, 10, (128,))
    convs = [nn.Conv2d(3, 16, 3, bias=False), nn.Conv2d(16, 16, 3, bias=False)]
    norms, head = [nn.BatchNorm2d(16), nn.BatchNorm2d(16)], nn.Linear(16, 10)
    products: list[Tensor] = []
    for batch in range(-1, 16):
        x = images if batch < 0 else images[batch * 8 :][:8]
        for conv, norm in zip(convs, norms, strict=True):
            x = conv(x)
            if batch < 0:
                norm.eps = share * float(x.detach().var((0, 2, 3)).median())
            x = torch.relu(norm(x))
        if batch >= 0:
            loss = nn.functional.cross_entropy(head(x.mean((2, 3))), labels[batch * 8 :][:8])
            (gradient,) = torch.autograd.grad(loss, convs[1].weight)
            products.append((convs[1].weight * gradient).detach().flatten())
    stacked = torch.stack(products)
    return float((stacked.sum(1) ** 2 / (stacked**2).sum(1)).mean())


def test_the_verdict_outlasts_the_share_that_is_allowed_and_no_more() -> None:
    seeds = range(8)
    assert max(z2_with_eps(EPS_SHARE, seed) for seed in seeds) < Z2_LIMIT / 2
    assert max(z2_with_eps(3 * EPS_SHARE, seed) for seed in seeds) > Z2_LIMIT


def test_eps_matters_from_its_share_on() -> None:
    norm, factor = nn.BatchNorm2d(4), 10**-0.25
    norm.running_var.fill_(norm.eps / EPS_SHARE / factor**2)
    assert not eps_would_matter(norm, factor * 1.01)
    assert eps_would_matter(norm, factor * 0.99)
    assert not eps_would_matter(nn.GroupNorm(2, 4), factor)  # knows no running variance


@pytest.mark.parametrize(("share", "moves"), [(EPS_SHARE / 2, True), (EPS_SHARE * 2, False)])
def test_a_weight_that_would_become_too_small_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float, moves: bool
) -> None:
    hooks = [{"type": "SMDHook", "interval": 1}, {"type": "EquilibriumRescaleHook"}]
    runner = tiny_runner(tmp_path, hooks, milestones=(20,))
    factor = rescale_factor(SGDRule(0.1, 0.01), 10)

    class Eps(Hook):
        def before_train_iter(self, runner: Runner, *_: object, **__: object) -> None:
            if runner.iter == 20:
                norm = runner.model.bn
                norm.eps = share * factor**2 * float(norm.running_var.median())

    runner.register_hook(Eps(), priority="HIGHEST")
    with caplog.at_level(logging.WARNING):
        runner.train()
    (run,) = load_runs(tmp_path)
    conv = run.samples[run.samples["weight"] == 0].set_index("step")
    assert conv["rescale"].loc[39] == pytest.approx(factor if moves else 1.0)
