"""Configs, old- and new-style, read as plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from smd_hooks.analysis.forecast.plan import Plan
from smd_hooks.planning import forecast, read_plan
from smd_hooks.planning.configs import load_config
from smd_hooks.theory import AdamRule, RotationalRule, SGDRule
from tests.conftest import ROOT

OLD = """
custom_imports = dict(imports=['benchmarks.pipelines.classification', 'smd_hooks'])
model = dict(type='TorchvisionClassifier', arch='resnet18', num_classes=10,
             data_preprocessor=dict(type='ImagePreprocessor', mean=[0.0] * 3, std=[1.0] * 3))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=40),
    dict(type='MultiStepLR', milestones=[3, 5], gamma=0.1)]
train_cfg = dict(by_epoch=True, max_epochs=6)
train_dataloader = dict(batch_size=2, dataset=dict(
    type='ImageFolderDataset', data_root='data/none', split='train', transforms=[]))
"""

NEW_BASE = """
from mmengine.optim import MultiStepLR, OptimWrapper
from torch.optim import AdamW

optim_wrapper = dict(
    type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.05, betas=(0.9, 0.99)))
param_scheduler = [dict(type=MultiStepLR, milestones=[2], gamma=0.1)]
"""

NEW = """
from mmengine.config import read_base

with read_base():
    from .schedule import *

from benchmarks.pipelines.classification.classifier import TorchvisionClassifier
from benchmarks.pipelines.classification.preprocessor import ImagePreprocessor
from mmengine.runner import EpochBasedTrainLoop

model = dict(
    type=TorchvisionClassifier, arch='resnet18', num_classes=10,
    data_preprocessor=dict(type=ImagePreprocessor, mean=[0.0] * 3, std=[1.0] * 3))
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=4)
optim_wrapper.update(accumulative_counts=2, clip_grad=dict(max_norm=1.0))
"""


def config(**overrides: Any) -> Config:
    cfg = Config.fromstring(OLD, ".py")
    if "param_scheduler" in overrides:  # a list is not merged with a dict
        cfg.param_scheduler = overrides.pop("param_scheduler")
    cfg.merge_from_dict(overrides)
    return cfg


def plan(iters_per_epoch: int | None = 100, gpus: int | None = None, **overrides: Any) -> Plan:
    return read_plan(config(**overrides), iters_per_epoch=iters_per_epoch, gpus=gpus)


def test_an_old_style_config() -> None:
    found = plan()
    (group,) = found.groups
    assert group.rule == SGDRule(0.1, 1e-4, momentum=0.9)
    assert (found.steps, found.steps_per_epoch) == (600, 100)
    assert found.starts[-2:].tolist() == [300, 500]
    assert group.lr[0] == pytest.approx(0.01)
    assert group.lr[-3:].tolist() == pytest.approx([0.1, 0.01, 0.001])
    assert len(found.layers.invariant) == len(group.weights) == 20
    assert not found.rescaled
    assert found.notes == ()


def test_a_new_style_config_with_a_base(tmp_path: Path) -> None:
    (tmp_path / "schedule.py").write_text(NEW_BASE)
    file = tmp_path / "config.py"
    file.write_text(NEW)
    cfg, notes = load_config(file, {"optim_wrapper.optimizer.lr": 2e-3})
    found = read_plan(cfg, iters_per_epoch=100)
    (group,) = found.groups
    assert notes == ()
    assert group.rule == AdamRule(2e-3, 0.05, 0.9, 0.99)
    # two iterations make a step
    assert (found.steps, found.steps_per_epoch, found.clipped_to) == (200, 50, 1.0)
    assert found.starts.tolist() == [0, 100]
    assert len(found.layers.invariant) == 20
    # torchvision's initialisation: what Adam's first update is large or small against
    assert 0.01 < (group.initial_rms or 0) < 0.2
    assert 0.1 < (group.initial_norm or 0) < 10


def test_accumulation_takes_the_rate_of_a_steps_last_iteration() -> None:
    found = plan(iters_per_epoch=7, **{"optim_wrapper.accumulative_counts": 4})
    rates = np.repeat(found.groups[0].lr, np.diff(np.append(found.starts, found.steps)))
    plain = plan(iters_per_epoch=7)
    single = np.repeat(plain.groups[0].lr, np.diff(np.append(plain.starts, plain.steps)))
    assert found.steps == -(-42 // 4)  # the last one is taken early
    np.testing.assert_array_equal(rates[:-1], single[3::4])


def test_an_iteration_based_loop_needs_no_epochs() -> None:
    found = plan(
        iters_per_epoch=None,
        train_cfg=dict(_delete_=True, type="IterBasedTrainLoop", max_iters=500),
        param_scheduler=dict(type="MultiStepLR", by_epoch=False, milestones=[300]),
    )
    assert (found.steps, found.steps_per_epoch) == (500, None)
    idle = plan(train_cfg=dict(_delete_=True, type="IterBasedTrainLoop", max_iters=500))
    assert any("MultiStepLR counts epochs" in note for note in idle.notes)
    assert idle.groups[0].lr[-1] == pytest.approx(0.1)


def test_auto_scale_lr_and_the_number_of_gpus() -> None:
    scaling = dict(enable=True, base_batch_size=16)
    assert plan(auto_scale_lr=scaling).groups[0].lr.max() == pytest.approx(0.1)
    four = plan(auto_scale_lr=scaling, gpus=4)
    assert four.groups[0].lr.max() == pytest.approx(0.05)
    assert four.groups[0].rule == SGDRule(0.05, 1e-4, momentum=0.9)
    assert plan(auto_scale_lr=dict(base_batch_size=16), gpus=4).groups[0].lr.max() == 0.1


def test_weights_with_another_rate_are_a_group_of_their_own() -> None:
    paramwise = dict(custom_keys={"layer4": dict(lr_mult=0.1, decay_mult=0.0)})
    found = plan(**{"optim_wrapper.paramwise_cfg": paramwise})
    first, second = found.groups
    assert isinstance(second.rule, SGDRule)
    assert (first.lr.max(), second.lr.max()) == pytest.approx((0.1, 0.01))
    assert second.rule.weight_decay == 0
    assert len(first.weights) + len(second.weights) == 20
    assert all("layer4" in name for name in second.weights)


def test_gains_and_the_classifier_are_no_groups() -> None:
    paramwise = dict(norm_decay_mult=0.0, custom_keys={"fc": dict(lr_mult=10.0)})
    found = plan(**{"optim_wrapper.paramwise_cfg": paramwise})
    assert [group.lr.max() for group in found.groups] == pytest.approx([0.1])


def test_hooks_that_rescale_or_turn() -> None:
    assert plan(custom_hooks=[dict(type="EquilibriumRescaleHook")]).rescaled
    turned = plan(custom_hooks=[dict(type="RotationalUpdateHook", schedule="linear")])
    rule = turned.groups[0].rule
    assert isinstance(rule, RotationalRule)
    assert rule.schedule == "linear"
    assert rule.peak_angle == pytest.approx((2 * 0.1 * 1e-4 / 1.9) ** 0.5)


def test_an_optimizer_of_ours_and_one_that_nobody_knows() -> None:
    ours = dict(_delete_=True, type="LionAR", lr=1e-3, weight_decay=0.1)
    assert isinstance(plan(**{"optim_wrapper.optimizer": ours}).groups[0].rule, RotationalRule)
    other = dict(_delete_=True, type="Adagrad", lr=1e-3)
    assert "no prediction for Adagrad" in str(plan(**{"optim_wrapper.optimizer": other}).groups[0])
    with pytest.raises(ValueError, match="optimizer Nadam9 is not registered"):
        plan(**{"optim_wrapper.optimizer.type": "Nadam9"})


def test_epochs_are_counted_from_the_data(tmp_path: Path) -> None:
    for label in "ab":
        folder = tmp_path / "train" / label
        folder.mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (4, 4)).save(folder / f"{i}.png")
    data = {"train_dataloader.dataset.data_root": str(tmp_path)}
    assert plan(iters_per_epoch=None, **data).steps_per_epoch == 5
    four = plan(iters_per_epoch=None, gpus=4, **data)
    assert four.steps_per_epoch == 2
    assert any("4 GPUs" in note for note in four.notes)
    dropped = {**data, "train_dataloader.drop_last": True}
    assert plan(iters_per_epoch=None, gpus=4, **dropped).steps_per_epoch == 1
    cut = {**data, "train_dataloader.num_batch_per_epoch": 3}
    assert plan(iters_per_epoch=None, **cut).steps_per_epoch == 3


def test_without_data_the_length_of_an_epoch_is_asked_for() -> None:
    with pytest.raises(ValueError, match="give --iters-per-epoch"):
        plan(iters_per_epoch=None)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (dict(optim_wrapper=dict(_delete_=True)), "no optim_wrapper"),
        (
            dict(optim_wrapper=dict(_delete_=True, a=dict(optimizer={}), b=dict(optimizer={}))),
            "several optimizers has no forecast: a, b",
        ),
        (dict(train_cfg=dict(_delete_=True, by_epoch=True)), "no max_epochs"),
        ({"optim_wrapper.optimizer.lrr": 1}, "optimizer SGD cannot be built"),
        (dict(param_scheduler=dict(type="ReduceOnPlateauLR")), "follows a metric"),
    ],
)
def test_what_is_no_plan_is_refused(overrides: Any, line: str) -> None:
    with pytest.raises(ValueError, match=line) as caught:
        plan(**overrides)
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_built_is_judged_by_the_config() -> None:
    backbone = dict(type="ResNet", norm_cfg=dict(type="SyncBN"), norm_eval=True, frozen_stages=1)
    found = plan(model=dict(_delete_=True, type="NoSuchModel", backbone=backbone))
    assert found.layers.verdict == "unknown"
    for told in ("cannot be built", "NoSuchModel", "SyncBN", "norm_eval=True", "frozen_stages=1"):
        assert told in found.layers.note
    assert found.groups[0].rule == SGDRule(0.1, 1e-4, momentum=0.9)


def test_weights_that_come_from_a_checkpoint_have_no_known_size() -> None:
    adamw = dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.1)
    found = plan(**{"optim_wrapper.optimizer": adamw}, load_from="somewhere.pth")
    assert found.groups[0].initial_norm is None
    assert "checkpoint" in found.groups[0].initial_unknown


@pytest.mark.parametrize(
    ("file", "ends"),
    [
        ("imagenet/resnet50_goyal_8xb32-90e.py", ["1.000", "0.989", "0.373", "0.119"]),
        ("coco/mask-rcnn_r50_fpn_syncbn-scratch_4x_coco.py", ["1.000", "0.364", "0.116"]),
    ],
)
def test_our_configs_have_the_papers_stage_values(file: str, ends: list[str]) -> None:
    found = forecast(ROOT / "configs" / file, iters_per_epoch=5004)
    stages = [stage for stage in found.groups[0].stages if stage.name != "warmup"]
    assert [f"{stage.ratio[-1]:.3f}" for stage in stages] == ends
    assert found.layers.verdict == "some"
