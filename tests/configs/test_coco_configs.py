"""The COCO configs that others derive from: the papers' settings, and mmdet's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmdet
import pytest
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

import benchmarks.pipelines.detection  # noqa: F401
from smd_hooks.theory.rotation import is_rotational

CONFIGS = Path(__file__).parents[2] / "configs" / "coco"
SYNCBN = "mask-rcnn_r50_fpn_syncbn-scratch_4x_coco.py"
NAMES = [SYNCBN, "faster-rcnn_r50_fpn_1x_coco.py", "retinanet_r50_fpn_1x_coco.py"]


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / name, import_custom_modules=False)


@pytest.fixture(scope="module")
def syncbn() -> Config:
    return load(SYNCBN)


@pytest.fixture(scope="module")
def model(syncbn: Config) -> nn.Module:
    register_all_modules()
    return MODELS.build(syncbn.model)


def test_schedule_is_that_of_smd_fig3(syncbn: Config) -> None:
    assert syncbn.train_cfg.type == "IterBasedTrainLoop"
    assert syncbn.train_cfg.max_iters == 360_000
    warmup, steps = syncbn.param_scheduler
    assert (warmup.type, warmup.end, warmup.by_epoch) == ("LinearLR", 500, False)
    assert (steps.type, steps.by_epoch) == ("MultiStepLR", False)
    assert (steps.milestones, steps.gamma) == ([300_000, 340_000], 0.1)
    assert steps.get("end", 360_000) >= 360_000


def test_sgd_and_batch_are_those_of_smd_fig3(syncbn: Config) -> None:
    optimizer = syncbn.optim_wrapper.optimizer
    assert optimizer == {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4}
    assert syncbn.train_dataloader.batch_size == 2
    assert syncbn.auto_scale_lr.base_batch_size == 8 * 2
    assert "clip_grad" not in syncbn.optim_wrapper


def test_it_validates_at_an_interval_and_at_the_end(syncbn: Config) -> None:
    assert 0 < syncbn.train_cfg.val_interval < 360_000
    assert 360_000 % syncbn.train_cfg.val_interval == 0
    assert list(syncbn.val_evaluator.metric) == ["bbox", "segm"]


def test_every_norm_is_syncbn_and_follows_each_conv_but_the_predictors(model: nn.Module) -> None:
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    convs = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    bare = [name for name in convs if name.startswith("rpn_head") or "conv_logits" in name]
    assert len(norms) == len(convs) - len(bare)
    assert {name.split(".")[0] for name, m in model.named_modules() if m in norms} == {
        "backbone",
        "neck",
        "roi_head",
    }


def test_the_box_head_is_4conv1fc(model: nn.Module) -> None:
    head = model.roi_head.bbox_head
    assert (len(head.shared_convs), len(head.shared_fcs)) == (4, 1)


def test_nothing_is_frozen_or_pretrained(syncbn: Config, model: nn.Module) -> None:
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.train()
    assert all(module.training for module in model.modules())
    assert "Pretrained" not in str(syncbn.model)
    assert "checkpoint" not in str(syncbn.model)


def test_decay_is_on_matrices_only(syncbn: Config, model: nn.Module) -> None:
    optimizer = build_optim_wrapper(model, syncbn.optim_wrapper).optimizer
    decayed = {id(p) for g in optimizer.param_groups for p in g["params"] if g["weight_decay"]}
    assert decayed == {id(p) for p in model.parameters() if p.ndim > 1}
    assert {g["lr"] for g in optimizer.param_groups} == {0.02}


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_stock_configs_stay_as_mmdet_ships_them(name: str) -> None:
    added = {"custom_imports", "custom_hooks", "randomness"}
    ours = {key: value for key, value in load(name).to_dict().items() if key not in added}
    assert ours["default_hooks"]["checkpoint"].pop("max_keep_ckpts") == 3
    folder = name.split("_r50")[0].replace("-", "_")
    shipped = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / "configs" / folder / name)
    assert without_scope(ours) == without_scope(dict(shipped.items()))


def without_scope(config: Any) -> Any:
    """Drop the mark that MMEngine leaves on whatever came from another package's config."""
    if isinstance(config, Mapping):
        return {key: without_scope(value) for key, value in config.items() if key != "_scope_"}
    if isinstance(config, list):
        return [without_scope(value) for value in config]
    return config


@pytest.mark.parametrize("name", NAMES)
def test_every_run_is_measured_seeded_and_readied(name: str) -> None:
    config = load(name)
    assert config.custom_hooks == [{"type": "SMDHook", "interval": 50}]
    assert config.custom_imports.imports == ["smd_hooks", "benchmarks.pipelines.detection"]
    assert config.randomness.seed == 0
    assert config.data_root == "data/coco/"
    assert config.default_hooks.visualization.type == "DetVisualizationHook"


PREDICTORS = {
    "faster-rcnn_r50_fpn": {"rpn_cls", "rpn_reg", "fc_cls", "fc_reg"},
    "mask-rcnn_r50_fpn_syncbn-scratch": {"rpn_cls", "rpn_reg", "fc_cls", "fc_reg", "conv_logits"},
    "retinanet_r50_fpn": {"retina_cls", "retina_reg"},
}


@pytest.mark.parametrize("optimizer", ["rotational-sgd", "rotational-adamw", "lionar"])
@pytest.mark.parametrize("detector", PREDICTORS)
def test_all_matrices_turn_but_the_predictors(detector: str, optimizer: str) -> None:
    name = f"{detector}-{optimizer}_{'4x' if 'mask' in detector else '1x'}_coco.py"
    free = free_norms(load(name))
    assert {weight.split(".")[-2] for weight in free} == PREDICTORS[detector]
    assert len(free) == len(PREDICTORS[detector])  # each key meets one weight
    # as it was: a predictor's norm is kept, too
    without = load(name)
    del without.optim_wrapper.paramwise_cfg["custom_keys"]
    assert free_norms(without) == set()


def free_norms(config: Config) -> set[str]:
    """Name the matrices that train and do not turn; check that biases are treated alike."""
    register_all_modules()
    detector = MODELS.build(config.model)
    names = {id(p): name for name, p in detector.named_parameters()}
    groups = build_optim_wrapper(detector, config.optim_wrapper).optimizer.param_groups
    biases = [g for g in groups for p in g["params"] if names[id(p)].endswith("bias")]
    assert len({g["weight_decay"] for g in biases}) == 1
    return {
        names[id(p)]
        for group in groups
        for p in group["params"]
        if p.ndim > 1 and not is_rotational(group)
    }


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_no_run_keeps_all_its_checkpoints(path: Path) -> None:
    checkpoint = load(path.name).default_hooks.checkpoint
    assert checkpoint.max_keep_ckpts == 3
    assert checkpoint.interval == (30_000 if "4x" in path.stem else 1)


def test_the_overrides_for_other_data_are_one_line_each_and_splits_apart() -> None:
    text = (CONFIGS.parent / "_base_" / "detection.py").read_text()
    listed = [line.strip(' "') for line in text.splitlines() if line.startswith("    ")]
    options = dict(line.split("=", 1) for line in listed)
    assert not any(brace in line for line in listed for brace in "{}")  # no shell expands them
    for key in ("ann_file", "data_prefix.img"):
        train, val = (options[f"{split}_dataloader.dataset.{key}"] for split in ("train", "val"))
        assert train.replace("train", "val") == val != train
