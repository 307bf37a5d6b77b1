"""The ways in which MMEngine projects step: several optimizers, EMA, schedules, ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

from smd_hooks import SMDHook, load_runs
from smd_hooks.analysis import Run
from tests.hooks.runs import tiny_runner
from tests.measure.processes import on_two_processes


def the_run(folder: Path) -> Run:
    (run,) = load_runs(folder)
    return run


def of(run: Run, parameter: str, unit: int = -1) -> Any:
    index = run.weights["parameter"].tolist().index(parameter)
    data = run.samples
    return data[(data["weight"] == index) & (data["unit"] == unit)]


class Pair(BaseModel):
    """As a GAN: each half has its own optimizer, and the root is never called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Tanh())
            for _ in range(2)
        )

    def forward(self, inputs: Tensor, labels: Tensor, mode: str = "tensor") -> Any:
        return self.first(inputs)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        images = data[0]
        for _ in range(2):  # the critic steps twice as often
            loss = self.second(images).square().mean()
            optim_wrapper["second"].update_params(loss)
        loss = self.first(images).square().mean()
        optim_wrapper["first"].update_params(loss)
        return {"loss": loss.detach()}


def test_several_optimizers_are_measured_each_by_its_own_count(tmp_path: Path) -> None:
    model = Pair()
    runner = tiny_runner(tmp_path, [{"type": "SMDHook", "interval": 1}], iterations=20)
    runner.model = model
    runner.param_schedulers = None
    runner.optim_wrapper = OptimWrapperDict(
        first=OptimWrapper(torch.optim.SGD(model.first.parameters(), lr=0.1, weight_decay=0.01)),
        second=OptimWrapper(torch.optim.AdamW(model.second.parameters(), lr=0.01)),
    )
    runner.train()
    run = the_run(tmp_path)
    weights = run.weights.set_index("parameter")
    for name, kind, steps in (("first", "SGD", 20), ("second", "Adam", 40)):
        assert bool(weights.loc[f"{name}.0.weight", "scale_invariant"])
        assert weights.loc[f"{name}.0.weight", "reason"] == f"normalized by {name}.1"
        assert weights.loc[f"{name}.0.weight", "optimizer"] == name
        assert weights.loc[f"{name}.0.weight", "rule"]["type"] == kind
        assert of(run, f"{name}.0.weight")["step"].tolist() == list(range(steps))
    assert len(run.scores) == 2


def test_a_change_of_mode_is_dated_by_each_optimizers_own_count(tmp_path: Path) -> None:
    model = Pair()

    class Freeze(Hook):
        def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
            model.second[1].train(runner.iter < 20)

    runner = tiny_runner(tmp_path, [{"type": "SMDHook", "interval": 1}], iterations=60)
    runner.model = model
    runner.param_schedulers = None
    runner.optim_wrapper = OptimWrapperDict(
        first=OptimWrapper(torch.optim.SGD(model.first.parameters(), lr=0.1, weight_decay=0.01)),
        second=OptimWrapper(torch.optim.SGD(model.second.parameters(), lr=0.1, weight_decay=0.01)),
    )
    runner.register_hook(Freeze())
    runner.train()
    weights = the_run(tmp_path).weights.set_index("parameter")
    assert weights.loc["first.0.weight", "changes"] == [[0, True]]
    assert weights.loc["second.0.weight", "changes"] == [[0, True], [40, False]]


def test_a_weight_that_two_optimizers_step_has_no_prediction(tmp_path: Path) -> None:
    model = Pair()
    runner = tiny_runner(tmp_path, [{"type": "SMDHook", "interval": 1}], iterations=20)
    runner.model = model
    runner.param_schedulers = None
    both = [*model.first.parameters(), *model.second.parameters()]
    runner.optim_wrapper = OptimWrapperDict(
        first=OptimWrapper(torch.optim.SGD(both, lr=0.1, weight_decay=0.01)),
        second=OptimWrapper(torch.optim.SGD(model.second.parameters(), lr=0.2, weight_decay=0.01)),
    )
    runner.train()
    run = the_run(tmp_path)
    shared = run.weights[run.weights["parameter"] == "second.0.weight"]
    assert len(shared) == 2
    assert set(shared["no_prediction"]) == {"no prediction: stepped by several optimizers"}
    assert run.scores["parameter"].tolist() == ["first.0.weight"]


def test_a_matrix_that_is_added_mid_run_is_told_apart(tmp_path: Path) -> None:
    class Grow(Hook):
        def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
            if runner.iter == 30:
                runner.model.late = nn.Linear(8, 8)
                group = {"params": list(runner.model.late.parameters())}
                runner.optim_wrapper.optimizer.add_param_group(group)
                runner.model.conv.register_forward_hook(
                    lambda module, args, out: (
                        runner.model.late(out.mT).mT
                        if out.shape[2] == 8
                        else out + 0 * runner.model.late.weight.sum()
                    )
                )

    runner = tiny_runner(tmp_path, [{"type": "SMDHook", "interval": 1}], iterations=60)
    runner.param_schedulers = None
    runner.register_hook(Grow())
    runner.train()
    run = the_run(tmp_path)
    assert of(run, "late.weight")["step"].tolist() == list(range(30, 60))
    assert len(of(run, "bn.weight")) == 0


def test_filters_are_kept_where_they_are_scale_invariant(tmp_path: Path) -> None:
    tiny_runner(tmp_path, [{"type": "SMDHook", "interval": 1, "per_filter": True}]).train()
    run = the_run(tmp_path)
    assert len(of(run, "conv.weight")) == len(of(run, "conv.weight", unit=7)) == 40
    assert len(of(run, "fc.weight")) == 40
    assert len(of(run, "fc.weight", unit=0)) == 0
    assert run.scores["parameter"].tolist() == ["conv.weight"]
    squares = sum(of(run, "conv.weight", unit=i)["weight_norm"].to_numpy() ** 2 for i in range(8))
    whole = of(run, "conv.weight")["weight_norm"].to_numpy()
    assert squares**0.5 == pytest.approx(whole, rel=1e-5)


class FreezeAt20(Hook):
    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter >= 20:
            runner.model.bn.eval()


def test_a_norm_that_is_frozen_mid_run_ends_the_verdict(tmp_path: Path) -> None:
    runner = tiny_runner(tmp_path, [{"type": "SMDHook", "interval": 1}], iterations=60)
    runner.register_hook(FreezeAt20())
    runner.train()
    run = the_run(tmp_path)
    conv = run.weights.set_index("parameter").loc["conv.weight"]
    assert conv["changes"] == [[0, True], [20, False]]
    assert not conv["scale_invariant"]
    assert "eval mode" in conv["reason"]
    assert run.predicted["step"].max() == 19
    assert len(run.scores) == 0


class SwapEvery10(Hook):
    """What EMAHook does around each validation."""

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        average = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
        if runner.iter % 10 == 9:
            own = runner.model.conv.weight.detach().clone()
            average.before_val_epoch(runner)
            assert not torch.equal(runner.model.conv.weight, own)
            average.after_val_epoch(runner)


def test_an_average_that_is_swapped_in_for_validation_changes_nothing(tmp_path: Path) -> None:
    runs = []
    for name in ("plain", "averaged"):
        hooks = [{"type": "SMDHook", "interval": 1}]
        if name == "averaged":
            hooks.append({"type": "EMAHook", "momentum": 0.1})
        runner = tiny_runner(tmp_path / name, hooks)
        if name == "averaged":
            runner.register_hook(SwapEvery10(), "LOWEST")
        runner.train()
        runs.append(the_run(tmp_path / name))
    assert len(runs[0].samples) == 80
    assert runs[0].samples.equals(runs[1].samples)


def test_a_momentum_that_is_scheduled_ends_the_prediction(tmp_path: Path) -> None:
    class Schedule(Hook):
        def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
            if runner.iter == 60:
                runner.optim_wrapper.param_groups[0]["momentum"] = 0.5

    runner = tiny_runner(tmp_path, [{"type": "SMDHook", "interval": 1}], iterations=120)
    runner.register_hook(Schedule())
    runner.train()
    conv = the_run(tmp_path).weights.set_index("parameter").loc["conv.weight"]
    assert conv["rule"] is None
    assert conv["no_prediction"] == (
        "no prediction: changed during training: momentum from 0.9 to 0.5"
    )


def test_weights_of_low_precision_are_warned_of_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = tiny_runner(tmp_path, [], iterations=2)
    runner.model.conv.to(torch.bfloat16)
    hook = SMDHook()
    warned: list[str] = []
    runner.logger.warning = warned.append  # type: ignore[method-assign]
    hook.before_train(runner)
    assert any("are bfloat16: rounding alone turns them by 1.7e-03" in line for line in warned)
    hook.close(runner, "finished")


def test_representation_and_noise_at_their_own_intervals(tmp_path: Path) -> None:
    settings = {"layers": ["conv", "fc"], "interval": 4}
    hook = {"type": "SMDHook", "interval": 1, "representation": settings, "noise": settings}
    tiny_runner(tmp_path, [hook], iterations=80, accumulation=2).train()
    layers = the_run(tmp_path).layers
    assert set(layers["parameter"]) == {"conv.weight", "fc.weight"}
    assert sorted(set(layers["step"])) == list(range(0, 40, 4))
    assert set(layers["quantity"]) == {
        *("representation_change", "signal", "noise", "signal_to_noise", "critical_batch_size"),
        "gradient_momentum_alignment",
    }
    change = layers[layers["quantity"] == "representation_change"]["value"]
    assert change.between(1e-5, 1).all()
    assert len(change) == 20


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"representation": {"layers": ["conv"]}}, "representation must be dict"),
        ({"noise": {"layers": ["conv"], "interval": 0}}, "noise must be dict"),
        ({"noise": 50}, "noise must be dict"),
        ({"noise": {"layers": 5, "interval": 3}}, "noise must be dict"),
        ({"noise": {"layers": [3], "interval": 3}}, "noise must be dict"),
        ({"noise": {"layers": None, "interval": 3}}, "noise must be dict"),
        ({"per_filter": "no"}, "per_filter must be True or False"),
    ],
)
def test_senseless_layer_options_are_refused_in_one_line(
    option: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"SMDHook: {message}") as error:
        SMDHook(**option)
    assert "\n" not in str(error.value)


def test_noise_needs_a_second_batch_and_layers_that_exist(tmp_path: Path) -> None:
    runner = tiny_runner(
        tmp_path / "a", [{"type": "SMDHook", "noise": {"layers": ["conv"], "interval": 1}}]
    )
    with pytest.raises(RuntimeError, match="set optim_wrapper\\.accumulative_counts to 2"):
        runner.train()
    option = {"layers": ["backbone"], "interval": 1}
    runner = tiny_runner(tmp_path / "b", [{"type": "SMDHook", "representation": option}])
    with pytest.raises(ValueError, match=r"layers='backbone' matches no Linear or Conv"):
        runner.train()


def test_an_optimizer_of_gains_and_biases_alone_is_left_out(tmp_path: Path) -> None:
    model = Pair()
    runner = tiny_runner(tmp_path, [{"type": "SMDHook", "interval": 1}], iterations=12)
    runner.model = model
    runner.param_schedulers = None
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim == 1]
    runner.optim_wrapper = OptimWrapperDict(
        first=OptimWrapper(torch.optim.SGD(matrices, lr=0.1, weight_decay=0.01)),
        second=OptimWrapper(torch.optim.AdamW(gains, lr=0.01, weight_decay=0.5)),
    )
    runner.train()
    weights = the_run(tmp_path).weights
    assert set(weights[weights["measured"]]["optimizer"]) == {"first"}
    assert set(weights[~weights["measured"]]["weight_decay"]) == {0.5}


def test_a_run_without_matrices_trains_unmeasured(tmp_path: Path) -> None:
    runner = tiny_runner(
        tmp_path,
        [{"type": "SMDHook"}],
        iterations=4,
        optimizer=lambda model: torch.optim.SGD(model.bn.parameters(), lr=0.1),
    )
    runner.train()
    assert runner.iter == 4
    assert not list(tmp_path.glob("*/smd"))


def test_a_wrapper_that_is_no_torch_optimizer_is_refused(tmp_path: Path) -> None:
    class DeepSpeedOptimizer:
        param_groups: tuple[()] = ()

    runner = tiny_runner(tmp_path, [])
    runner.optim_wrapper.optimizer = DeepSpeedOptimizer()
    with pytest.raises(RuntimeError, match="DeepSpeedOptimizer does not step through") as error:
        SMDHook().before_train(runner)
    assert "\n" not in str(error.value)


def distributed(rank: int, folder: str) -> None:
    def wrapped(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)

    noise = {"layers": ["conv"], "interval": 5}
    hook = {"type": "SMDHook", "interval": 1, "noise": noise}
    runner = tiny_runner(Path(folder), [hook], optimizer=wrapped)
    runner.model = MMDistributedDataParallel(runner.model, broadcast_buffers=False)
    runner.train()


@pytest.mark.slow
def test_of_two_processes_the_first_one_records(tmp_path: Path) -> None:
    on_two_processes(tmp_path / "meet", distributed, str(tmp_path / "run"))
    run = the_run(tmp_path / "run")
    assert run.gpus == 2
    assert run.status == "finished"
    assert of(run, "conv.weight")["step"].tolist() == list(range(40))
    assert run.scores["parameter"].tolist() == ["conv.weight"]
    assert (run.layers["quantity"] == "critical_batch_size").sum() == 8


def sharded(rank: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard

    def wrapped(model: nn.Module) -> torch.optim.Optimizer:
        fully_shard(model)
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)

    runner = tiny_runner(Path(folder), [{"type": "SMDHook", "interval": 1}], optimizer=wrapped)
    runner._hooks = [h for h in runner.hooks if type(h).__name__ != "CheckpointHook"]
    runner._init_model_weights = lambda: None  # MMEngine cannot broadcast sharded weights
    runner.train()


@pytest.mark.slow
def test_weights_sharded_over_two_processes_are_judged_and_measured_whole(tmp_path: Path) -> None:
    tiny_runner(tmp_path / "one", [{"type": "SMDHook", "interval": 1}]).train()
    on_two_processes(tmp_path / "meet", sharded, str(tmp_path / "two"))
    one, two = the_run(tmp_path / "one"), the_run(tmp_path / "two")
    assert two.scores["parameter"].tolist() == ["conv.weight"]
    # both processes see the same batches, so that the runs are one and the same
    for column in ("weight_norm", "angular_update", "gradient_momentum_dot"):
        wanted = of(one, "conv.weight")[column].to_numpy()
        assert of(two, "conv.weight")[column].to_numpy() == pytest.approx(wanted, rel=1e-3)
