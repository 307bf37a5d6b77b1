"""RotationalUpdateHook in MMEngine runs, by custom_hooks alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

from smd_hooks import RotationalUpdateHook, load_runs
from smd_hooks.analysis import agreement_table
from smd_hooks.optim import LionAR, RotationalSGD
from tests.hooks.runs import TinyModel, tiny_runner

HOOK: dict[str, Any] = {"type": "RotationalUpdateHook"}
MEASURED: dict[str, Any] = {"type": "SMDHook", "interval": 1}
OPTIMIZERS = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda m: torch.optim.AdamW(m.parameters(), 0.01, weight_decay=0.1),
}


def weights_of(runner: Runner) -> list[Tensor]:
    return [p.detach().clone() for p in runner.model.parameters()]


@pytest.mark.parametrize("hooks", [[MEASURED, HOOK], [HOOK, MEASURED]])
def test_the_table_says_that_it_turned_as_set(tmp_path: Path, hooks: list[Any]) -> None:
    runner = tiny_runner(tmp_path, hooks, 120, OPTIMIZERS["SGD"], milestones=(60,))
    norm = runner.model.conv.weight.detach().flatten(1).norm(dim=1)
    runner.train()
    (run,) = load_runs(tmp_path)
    (row,) = agreement_table([run]).to_dict("records")
    assert row["verdict"] == "turned as set: in equilibrium by construction"
    assert row["angle_ratio"] == pytest.approx(1, abs=0.05)
    assert row["norm_ratio"] == pytest.approx(1, abs=1e-6)
    rule = run.weights.set_index("parameter").loc["conv.weight", "rule"]
    assert (rule["type"], rule["schedule"], rule["peak_lr"]) == ("Rotational", "sqrt", 0.1)
    asked = run.predicted.set_index("step")["equilibrium_angle"]
    assert asked[59] / asked[60] == pytest.approx(10**0.5)
    after = runner.model.conv.weight.detach().flatten(1).norm(dim=1)
    assert torch.allclose(after, norm, rtol=1e-6)
    assert not hasattr(runner.optim_wrapper.optimizer, "smd_rotational_update")


def test_it_makes_of_sgd_what_rotational_sgd_is(tmp_path: Path) -> None:
    """Clipped, accumulated and averaged, as configs have it."""
    runs = []
    for folder, kind, hooks in (("a", torch.optim.SGD, [HOOK]), ("b", RotationalSGD, [])):
        ema = {"type": "EMAHook", "momentum": 0.1}
        runner = tiny_runner(tmp_path / folder, [*hooks, ema], 40)
        runner.optim_wrapper = OptimWrapper(
            kind(runner.model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01),
            accumulative_counts=2,
            clip_grad={"max_norm": 0.5},
        )
        runner.train()
        average = next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model
        runs.append([*weights_of(runner), *(p.detach() for p in average.parameters())])
    for ours, theirs in zip(*runs, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(tmp_path: Path, kind: str) -> None:
    whole = tiny_runner(tmp_path / "whole", [HOOK], 40, OPTIMIZERS[kind], milestones=(30,))
    whole.train()
    resumed = tiny_runner(
        tmp_path / "resumed",
        [HOOK],
        40,
        OPTIMIZERS[kind],
        milestones=(30,),
        resume=True,
        load_from=str(tmp_path / "whole" / "iter_20.pth"),
    )
    resumed.train()
    for a, b in zip(weights_of(whole), weights_of(resumed), strict=True):
        assert torch.equal(a, b)


def test_groups_of_a_config_may_opt_out(tmp_path: Path) -> None:
    model = TinyModel()
    constructor = DefaultOptimWrapperConstructor(
        {
            "type": "OptimWrapper",
            "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        },
        {"custom_keys": {"fc": {"rotational": False}}},
    )
    runner = tiny_runner(tmp_path, [HOOK], 10)
    runner.model, runner.optim_wrapper = model, constructor(model)
    runner.param_schedulers = []
    before = model.conv.weight.detach().norm(), model.fc.weight.detach().norm()
    runner.train()
    assert float(model.conv.weight.detach().norm() / before[0]) == pytest.approx(1, abs=1e-6)
    assert abs(float(model.fc.weight.detach().norm() / before[1]) - 1) > 1e-3


@pytest.mark.parametrize(
    ("optimizer", "error", "words"),
    [
        (lambda m: torch.optim.RMSprop(m.parameters(), weight_decay=0.1), ValueError, "register_"),
        (lambda m: torch.optim.Adam(m.parameters(), weight_decay=0.1), ValueError, "give an angle"),
        (lambda m: LionAR(m.parameters(), 0.1, weight_decay=0.1), RuntimeError, "LionAR needs"),
        (lambda m: torch.optim.SGD(m.parameters(), 0.1), ValueError, "nothing to turn"),
    ],
)
def test_what_cannot_be_turned_is_refused_in_one_line(
    tmp_path: Path, optimizer: Any, error: Any, words: str
) -> None:
    runner = tiny_runner(tmp_path, [HOOK], optimizer=optimizer)
    with pytest.raises(error, match=f"^RotationalUpdate: .*{words}") as caught:
        runner.train()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reverse", [False, True])
def test_two_hooks_that_set_norms_are_refused(tmp_path: Path, reverse: bool) -> None:
    hooks = [HOOK, {"type": "EquilibriumRescaleHook"}]
    runner = tiny_runner(tmp_path, hooks[::-1] if reverse else hooks)
    with pytest.raises(RuntimeError, match="leave one of the two out"):
        runner.train()


def test_several_optimizers_are_refused(tmp_path: Path) -> None:
    runner = tiny_runner(tmp_path, [HOOK])
    wrapper = OptimWrapper(torch.optim.SGD(runner.model.fc.parameters(), 0.1))
    runner.optim_wrapper = OptimWrapperDict(a=runner.optim_wrapper, b=wrapper)
    runner.param_schedulers = None
    with pytest.raises(RuntimeError, match="RotationalUpdateHook: needs a run with one optimizer"):
        runner.train()


def test_hooks_that_look_at_weights_see_them_whole(tmp_path: Path) -> None:
    """Also those that are registered after the first step, on the optimizer itself."""
    seen: list[float] = []

    class Late(Hook):
        def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
            if runner.iter == 3:
                optimizer, weight = runner.optim_wrapper.optimizer, runner.model.conv.weight
                for register in (
                    optimizer.register_step_pre_hook,
                    optimizer.register_step_post_hook,
                ):
                    register(lambda *_: seen.append(float(weight.detach().norm())))

    runner = tiny_runner(tmp_path, [HOOK], 8)
    norm = float(runner.model.conv.weight.detach().norm())
    runner.register_hook(Late())
    runner.train()
    assert seen == pytest.approx([norm] * 8, rel=1e-6)
    assert isinstance(runner.model.conv, nn.Conv2d)
    assert RotationalUpdateHook.priority == "ABOVE_NORMAL"
