"""The demo's Mask R-CNN: stages as long as its relaxation times ask, decay where it belongs."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

import benchmarks.pipelines.detection  # noqa: F401

CONFIG = Path(__file__).parents[2] / "configs" / "demo" / "mask-rcnn_digits.py"


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.fromfile(CONFIG, import_custom_modules=False)


@pytest.fixture(scope="module")
def model(config: Config) -> nn.Module:
    register_all_modules()
    return MODELS.build(config.model)


def test_stages_are_long_enough_in_relaxation_times(config: Config) -> None:
    sgd = config.optim_wrapper.optimizer
    (drop,) = config.param_scheduler.milestones
    gamma = config.param_scheduler.gamma
    relaxation_time = (1 - sgd.momentum) / (4 * sgd.lr * sgd.weight_decay)
    assert relaxation_time == pytest.approx(50)
    assert gamma == 1 / 4
    assert drop >= 12 * relaxation_time
    assert config.train_cfg.max_iters - drop >= 2 * relaxation_time / gamma


def test_all_convs_but_the_predictors_are_batch_normalized(model: nn.Module) -> None:
    convs = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    predictors = [name for name in convs if name.startswith("rpn_head") or "logits" in name]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len(convs) - len(predictors)
    model.train()
    assert all(norm.training for norm in norms)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_decay_is_on_matrices_only(config: Config, model: nn.Module) -> None:
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    decayed = {id(p) for g in optimizer.param_groups for p in g["params"] if g["weight_decay"]}
    assert decayed == {id(p) for p in model.parameters() if p.ndim > 1}


def test_the_run_is_seeded_and_in_one_process(config: Config) -> None:
    assert config.randomness.seed == 0
    assert config.train_dataloader.num_workers == config.val_dataloader.num_workers == 0
