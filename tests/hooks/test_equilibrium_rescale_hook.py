from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from smd_hooks import load_runs
from smd_hooks.hooks.equilibrium_rescale_hook import CHECKPOINT_KEY
from smd_hooks.measure.probe import RESCALE_KEY
from smd_hooks.measure.rescaling import EPS_SHARE
from smd_hooks.optim import LionAR
from smd_hooks.theory import LionRule, SGDRule, register_rule, rescale_factor
from tests.hooks.runs import tiny_runner


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


@pytest.mark.parametrize("remembered", [True, False])
def test_a_checkpoint_between_the_drop_and_the_next_step_loses_nothing(
    tmp_path: Path, remembered: bool
) -> None:
    hooks = [{"type": "SMDHook", "interval": 1}, {"type": "EquilibriumRescaleHook"}]
    tiny_runner(tmp_path, hooks, iterations=40, milestones=(20,)).train()
    next(tmp_path.glob("*_*/smd")).parent.rename(tmp_path / "20000101_000000")
    path = tmp_path / "iter_20.pth"
    if not remembered:  # a checkpoint of earlier versions
        checkpoint = torch.load(path, weights_only=False)
        del checkpoint[CHECKPOINT_KEY]
        torch.save(checkpoint, path)
    tiny_runner(tmp_path, hooks, 60, milestones=(20,), resume=True, load_from=str(path)).train()
    (run,) = load_runs(tmp_path)
    conv = run.samples[run.samples["weight"] == 0].set_index("step")
    assert conv["lr"].loc[20] == pytest.approx(0.01)
    # else the resumed run is still looking
    assert conv["rescale"].loc[20] == pytest.approx(10**-0.25 if remembered else 1.0)
    assert conv["rescale"].loc[59] == pytest.approx(10**-0.25)


def cosine(eta_min: float = 0.0) -> list[dict[str, Any]]:
    shape = {"type": "CosineAnnealingLR", "by_epoch": False, "T_max": 60, "eta_min": eta_min}
    return [shape]


OPTIMIZERS = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda m: torch.optim.AdamW(m.parameters(), 0.02, weight_decay=0.5),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_resume_in_mid_cosine_is_the_undisturbed_run_to_the_bit(
    tmp_path: Path, kind: str
) -> None:
    def run(folder: str, **settings: Any) -> tuple[nn.Module, dict[str, Any]]:
        hooks = [{"type": "EquilibriumRescaleHook"}]
        runner = tiny_runner(tmp_path / folder, hooks, 60, OPTIMIZERS[kind], **settings)
        runner.param_schedulers = cosine()
        runner.train()
        optimizer = runner.optim_wrapper.optimizer
        return runner.model, optimizer.state[runner.model.conv.weight]

    model, state = run("whole")
    resumed, again = run("resumed", resume=True, load_from=str(tmp_path / "whole" / "iter_40.pth"))
    assert state[RESCALE_KEY] < 0.5
    assert again[RESCALE_KEY] == state[RESCALE_KEY]
    for (name, tensor), other in zip(
        model.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, other), name


def test_weights_of_another_run_are_taken_without_its_memory(tmp_path: Path) -> None:
    hooks = [{"type": "EquilibriumRescaleHook"}]
    tiny_runner(tmp_path / "first", hooks, 20).train()
    loaded = tiny_runner(
        tmp_path / "second", hooks, 4, load_from=str(tmp_path / "first" / "iter_20.pth")
    )
    loaded.param_schedulers = cosine()
    loaded.train()  # too short to find its weights
    assert RESCALE_KEY not in loaded.optim_wrapper.optimizer.state[loaded.model.conv.weight]


def test_averaged_weights_go_along(tmp_path: Path) -> None:
    hooks = [{"type": "EquilibriumRescaleHook"}, {"type": "EMAHook", "momentum": 0.01}]
    runner = tiny_runner(tmp_path, hooks, 21, milestones=(20,))
    norms: list[float] = []

    class Look(Hook):
        def before_train_iter(self, runner: Runner, *_: object, **__: object) -> None:
            (ema,) = (hook for hook in runner.hooks if type(hook).__name__ == "EMAHook")
            norms.append(float(ema.ema_model.module.conv.weight.detach().norm()))

    runner.register_hook(Look(), priority="LOWEST")
    runner.train()
    assert norms[20] / norms[19] == pytest.approx(10**-0.25, rel=0.01)


# ------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        (lambda m: torch.optim.Adam(m.parameters(), weight_decay=0.1), "Adam with L2"),
        (lambda m: torch.optim.RMSprop(m.parameters(), weight_decay=0.1), "register_rule"),
        (lambda m: LionAR(m.parameters(), 0.1, weight_decay=0.1), "keeps its norm"),
    ],
)
def test_rules_without_a_factor_are_refused_in_one_line(
    tmp_path: Path, optimizer: Any, reason: str
) -> None:
    runner = tiny_runner(tmp_path, [{"type": "EquilibriumRescaleHook"}], optimizer=optimizer)
    with pytest.raises(RuntimeError, match=f"^EquilibriumRescaleHook: .*{reason}") as error:
        runner.train()
    assert "\n" not in str(error.value)


def test_several_optimizers_are_refused(tmp_path: Path) -> None:
    runner = tiny_runner(tmp_path, [{"type": "EquilibriumRescaleHook"}])
    wrapper = OptimWrapper(torch.optim.SGD(runner.model.fc.parameters(), 0.1))
    runner.optim_wrapper = OptimWrapperDict(a=runner.optim_wrapper, b=wrapper)
    runner.param_schedulers = None
    with pytest.raises(RuntimeError, match="needs a run with one optimizer"):
        runner.train()


def test_two_hooks_that_set_norms_are_refused(tmp_path: Path) -> None:
    class RotationalUpdateHook(Hook):
        pass

    runner = tiny_runner(tmp_path, [{"type": "EquilibriumRescaleHook"}])
    runner.register_hook(RotationalUpdateHook())
    with pytest.raises(RuntimeError, match="keeps the norms of its weights itself"):
        runner.train()


class Signum(torch.optim.SGD):
    """Takes its momentum where nobody knows of it."""


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (lambda m: torch.optim.Adam(m.parameters()), "no weight decay, nothing to rescale"),
        (lambda m: Signum(m.parameters(), 0.1, weight_decay=0.1), "Signum keeps its momentum"),
    ],
)
def test_what_can_be_trained_is_trained_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Any, words: str
) -> None:
    register_rule(Signum, lambda g: LionRule(g["lr"], g["weight_decay"], 0.9, 0.9))
    runner = tiny_runner(tmp_path, [{"type": "EquilibriumRescaleHook"}], 2, optimizer)
    said: list[str] = []
    monkeypatch.setattr(runner.logger, "warning", lambda line, *_: said.append(line))
    runner.train()
    assert any(words in line for line in said)


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
