"""LionAR's configs: each is another run's, with an optimizer that sets the angle it would reach."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from torch import nn

from smd_hooks.optim import LionAR
from smd_hooks.theory import SGDRule, UpdateRule, equilibrium_angle
from tests.configs.comparing import differing, load

PAIRS = {
    "imagenet/resnet50_lionar_8xb32-90e": "imagenet/resnet50_goyal_8xb32-90e",
    "coco/mask-rcnn_r50_fpn_syncbn-scratch-lionar_4x_coco": (
        "coco/mask-rcnn_r50_fpn_syncbn-scratch_4x_coco"
    ),
    "demo/resnet_digits_lionar": "demo/resnet_digits",
}


def angle_set_by(cfg: Config) -> float:
    options = cfg.optim_wrapper.optimizer.to_dict()
    assert options.pop("type") == "LionAR"
    optimizer = LionAR([nn.Parameter(torch.ones(4, 9))], **options)
    return equilibrium_angle(UpdateRule.from_optimizer(optimizer, optimizer.param_groups[0]))


@pytest.mark.parametrize("name", PAIRS)
def test_only_the_optimizer_differs_and_the_angle_is_the_other_runs(name: str) -> None:
    cfg, other = load(name), load(PAIRS[name])
    changed = differing(cfg.to_dict(), other.to_dict())
    others = {key for key in changed if not key.startswith("optim_wrapper.optimizer")}
    besides = {
        "demo": {"param_scheduler.milestones", "train_cfg.max_iters"},
        "coco": {"predictors", "optim_wrapper.paramwise_cfg.custom_keys"},
    }
    assert others == besides.get(name.split("/")[0], set())
    sgd = other.optim_wrapper.optimizer
    plain = SGDRule(sgd.lr, sgd.weight_decay, momentum=sgd.momentum)
    assert angle_set_by(cfg) == pytest.approx(equilibrium_angle(plain), rel=1e-3)


def test_the_demos_run_is_shorter_and_drops_late() -> None:
    cfg = load("demo/resnet_digits_lionar")
    plain = load("demo/resnet_digits")
    assert cfg.train_cfg.max_iters < plain.train_cfg.max_iters
    (drop,) = cfg.param_scheduler.milestones
    assert cfg.train_cfg.max_iters / 2 < drop < cfg.train_cfg.max_iters
    assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0


def test_the_recipe_without_warmup_is_the_papers() -> None:
    plain = load("imagenet/resnet50_lionar_8xb32-90e")
    recipe = load("imagenet/resnet50_lionar-no-warmup_8xb32-90e")
    changed = differing(recipe.to_dict(), plain.to_dict())
    options = ("beta", "nesterov", "inverse_bias_correction")
    assert changed == {f"optim_wrapper.optimizer.{name}" for name in options}
    optimizer = recipe.optim_wrapper.optimizer
    assert [optimizer[name] for name in options] == [0.98, True, True]
    assert recipe.param_scheduler.type == "MultiStepLR"  # and no warmup before it
    # longer momentum asks for smaller steps, which are more alike
    assert angle_set_by(recipe) < angle_set_by(plain) / 2
