from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

import benchmarks.pipelines.classification  # noqa: F401  registers the parts
from benchmarks.pipelines.demo_data.digits import write_digits
from smd_hooks.theory import UpdateRule, equilibrium_norm, relaxation_time
from tests.conftest import ROOT

PLAIN = ROOT / "configs" / "replica" / "resnet_digits.py"


def load(variant: str = "") -> Config:
    path = PLAIN.with_stem(PLAIN.stem + variant)
    return Config.fromfile(path, import_custom_modules=False)


def stage_lengths_in_relaxation_times(cfg: Config) -> list[float]:
    schedule = cfg.param_scheduler
    ends = [0, *schedule.milestones, cfg.train_cfg.max_iters]
    tau = relaxation_time(UpdateRule.from_config(cfg.optim_wrapper.optimizer))
    return [
        (end - start) / (tau / schedule.gamma**stage)
        for stage, (start, end) in enumerate(pairwise(ends))
    ]


@pytest.mark.parametrize("variant", ["", "_adamw"])
def test_stages_last_as_long_as_theory_asks(variant: str) -> None:
    cfg = load(variant)
    assert stage_lengths_in_relaxation_times(cfg) == pytest.approx([10, 6, 0.4, 0.02])
    assert relaxation_time(UpdateRule.from_config(cfg.optim_wrapper.optimizer)) >= 50 - 1e-9


def test_momentum_does_not_oscillate() -> None:
    optimizer = load().optim_wrapper.optimizer
    # above this the momentum buffer oscillates and the norm law of SGDM no longer holds
    assert optimizer.lr * optimizer.weight_decay < (1 - math.sqrt(optimizer.momentum)) ** 2


def test_every_step_is_measured_and_one_checkpoint_is_kept() -> None:
    cfg = load()
    assert cfg.custom_hooks == [dict(type="SMDHook", interval=1)]
    assert cfg.default_hooks.checkpoint.interval == cfg.train_cfg.max_iters


def test_digits_are_shifted_and_their_labels_redrawn_in_training_only(tmp_path: Path) -> None:
    cfg = load()
    write_digits(tmp_path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(tmp_path / "mnist_5k")
    train = DATASETS.build(cfg.train_dataloader.dataset)
    validation = DATASETS.build(cfg.val_dataloader.dataset)
    torch.manual_seed(0)
    draws = [train[0] for _ in range(300)]
    # .3 · .9: a redrawn label may be the old one
    assert sum(draw["label"] != 0 for draw in draws) / 300 == pytest.approx(0.27, abs=0.08)
    assert len({draw["inputs"].numpy().tobytes() for draw in draws}) > 15
    assert draws[0]["inputs"].shape == (1, 14, 14)
    assert all(
        draw["label"] == 0 and torch.equal(draw["inputs"], validation[0]["inputs"])
        for draw in (validation[0] for _ in range(20))
    )


def test_accuracy_is_known_around_every_drop() -> None:
    cfg = load()
    cfg.train_cfg.pop("by_epoch")
    runner = SimpleNamespace(visualizer=SimpleNamespace())
    loop = IterBasedTrainLoop(runner, DataLoader([0]), **cfg.train_cfg)
    validated = []
    for loop._iter in range(1, cfg.train_cfg.max_iters + 1):  # as the loop's run() does
        loop._decide_current_val_interval()
        if loop.iter % loop.val_interval == 0 or loop.iter == loop.max_iters:
            validated.append(loop.iter)
    drops = cfg.param_scheduler.milestones
    around = [drop + i for drop in drops for i in range(-4, 2)]
    assert validated == [*around, cfg.train_cfg.max_iters]


@pytest.mark.parametrize("variant", ["", "_adamw"])
def test_rescaled_differs_by_one_hook(variant: str) -> None:
    plain, rescaled = load(variant), load(f"{variant}_rescaled")
    plain.custom_hooks.append(dict(type="EquilibriumRescaleHook"))
    assert plain.to_dict() == rescaled.to_dict()


def test_adamw_differs_by_optimizer_and_width_and_begins_at_its_equilibrium_norm() -> None:
    sgd, adamw = load(), load("_adamw")
    init = adamw.model.pop("init_cfg")
    rule = UpdateRule.from_config(adamw.optim_wrapper.optimizer)
    assert init.std == pytest.approx(equilibrium_norm(rule, elements=1), rel=0.05)
    widths = zip(adamw.model.arch_options.widths, sgd.model.arch_options.widths, strict=True)
    assert all(wide > 3 * narrow for wide, narrow in widths)
    sgd.optim_wrapper = adamw.optim_wrapper
    sgd.model.arch_options.widths = adamw.model.arch_options.widths
    assert sgd.to_dict() == adamw.to_dict()


def test_noise_free_differs_by_noise_and_decay() -> None:
    plain, noise_free = load(), load("_noise-free")
    assert plain.train_dataloader.dataset.label_noise == 0.3
    plain.train_dataloader.dataset.label_noise = 0.0
    plain.optim_wrapper.optimizer.weight_decay = 0.01
    assert plain.to_dict() == noise_free.to_dict()


def test_norm_decay_differs_from_noise_free_by_the_norms() -> None:
    noise_free, norm_decay = load("_noise-free"), load("_norm-decay")
    noise_free.optim_wrapper.paramwise_cfg.norm_decay_mult = 1.0
    assert noise_free.to_dict() == norm_decay.to_dict()


@pytest.mark.parametrize(
    ("variant", "norms_decay", "classifier"),
    [("", False, 1.0), ("_norm-decay", True, 1.0), ("_adamw", False, 1.0)],
)
def test_only_the_control_lets_norms_decay(
    variant: str, norms_decay: bool, classifier: float
) -> None:
    cfg = load(variant)
    weight_decay = cfg.optim_wrapper.optimizer.weight_decay
    model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convs) == len(norms) == 9
    assert all(decay[id(conv.weight)] == weight_decay for conv in convs)
    assert decay[id(model.network.fc.weight)] == classifier * weight_decay
    assert decay[id(model.network.fc.bias)] == 0
    expected = weight_decay if norms_decay else 0
    assert all(decay[id(p)] == expected for norm in norms for p in (norm.weight, norm.bias))
