"""Every experiment's config is trained for 2 steps and validated, as ``benchmarks run`` does it.

Smaller than published are only: the data (10 photos, 20 images of CIFAR's size, 4 COCO images, a
novel), so that an epoch is 2 steps; batches and workers; image sizes (64 px for ResNet-50, 160 for
detectors); GPT-2, in all configs but one: narrow, shallow, with short windows; in detectors how
many proposals are trained on and how many boxes are kept. GPT-2 is neither compiled nor in
bfloat16. No checkpoint is saved.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

import benchmarks.pipelines.detection  # noqa: F401  readies mmcv before mmdet is imported
from benchmarks.launch import preflight
from benchmarks.launch.command import add_parser, build_runner, load_config
from benchmarks.pipelines.demo_data.text import write_text
from smd_hooks import load_runs
from tests.benchmarks.pipelines.classification.cifar_files import write_cifar
from tests.conftest import ROOT

CONFIGS = ROOT / "configs"
SPLITS = ("train", "val")
pytestmark = pytest.mark.slow


def configs_of(folder: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / folder).glob("*.py"))


def for_both(**options: str) -> dict[str, str]:
    """Spell the same options out for both loaders; ``SPLIT`` stands for its name."""
    return {
        f"{split}_dataloader.{key.replace('__', '.')}": value.replace("SPLIT", split)
        for split in SPLITS
        for key, value in options.items()
    }


ONE_PROCESS = for_both(num_workers="0", persistent_workers="False")
NO_CHECKPOINT = {  # they would be half a gigabyte a run
    "default_hooks.checkpoint.interval": "-1",
    "default_hooks.checkpoint.save_last": "False",
}


def train(config: Path, work_dir: Path, options: Mapping[str, str]) -> dict[str, float]:
    """Do what the command does; check the steps and the records; return the validation's scores."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    overrides = [f"{key}={value}" for key, value in options.items()]
    command = ["run", str(config), "--work-dir", str(work_dir), "--cfg-options", *overrides]
    cfg = load_config(parser.parse_args(command))
    preflight.check(cfg)
    runner = build_runner(cfg)
    watched = starting_weights(runner)
    runner.train()
    micro_batches = int(cfg.optim_wrapper.get("accumulative_counts", 1))
    assert runner.iter == runner.max_iters == 2 * micro_batches
    assert all(torch.isfinite(parameter).all() for parameter in runner.model.parameters())
    assert any(not torch.equal(parameter, watched[parameter]) for parameter in watched)
    (run,) = load_runs(work_dir)
    assert run.status == "finished"
    history = runner.message_hub.log_scalars
    return {k.removeprefix("val/"): v.current() for k, v in history.items() if k.startswith("val/")}


def starting_weights(runner: Runner) -> dict[torch.Tensor, torch.Tensor]:
    """Return trainable parameters with what they are at the first step, filled in then."""
    optimizer, weights = runner.optim_wrapper.optimizer, {}

    def look(*_: object) -> None:
        if not weights:
            groups = optimizer.param_groups
            weights.update({p: p.detach().clone() for g in groups for p in g["params"]})

    optimizer.register_step_pre_hook(look)
    return weights


@pytest.fixture(scope="module")
def imagenet(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photo of each of ten ImageNet classes for training, and one for validation."""
    root = tmp_path_factory.mktemp("imagenet")
    for split in SPLITS:
        for source in (shared_data / "imagenette128" / split).iterdir():
            folder = root / split / source.name
            folder.mkdir(parents=True)
            shutil.copy(min(source.iterdir()), folder)
    return root


@pytest.mark.parametrize("name", configs_of("imagenet"))
def test_on_photos_in_imagenets_layout(name: str, imagenet: Path, tmp_path: Path) -> None:
    length = (
        {"train_cfg.max_iters": "2", "train_cfg.val_interval": "2"}
        if "450k" in name
        else {"train_cfg.max_epochs": "1"}
    )
    size = 224 if "deit" in name else 64  # position embeddings are those of 224 px
    options = {
        **ONE_PROCESS,
        **NO_CHECKPOINT,
        **for_both(dataset__data_root=str(imagenet), pin_memory="False", batch_size="5"),
        "train_dataloader.dataset.transforms.0.size": str(size),
        "val_dataloader.dataset.transforms.1.size": str(size),
    }
    scores = train(CONFIGS / "imagenet" / f"{name}.py", tmp_path / "run", options | length)
    assert 0 <= scores["accuracy/top1"] <= scores["accuracy/top5"] <= 100


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty noise images for training and four for validation, in CIFAR-10's own files."""
    write_cifar(tmp_path / "cifar10", monkeypatch)
    return tmp_path / "cifar10"


@pytest.mark.parametrize("name", configs_of("cifar10"))
def test_on_images_in_cifars_files(name: str, cifar10: Path, tmp_path: Path) -> None:
    options = {
        **ONE_PROCESS,
        **NO_CHECKPOINT,
        **for_both(dataset__data_root=str(cifar10), pin_memory="False", batch_size="10"),
        "train_cfg.max_epochs": "1",
    }
    scores = train(CONFIGS / "cifar10" / f"{name}.py", tmp_path / "run", options)
    assert 0 <= scores["accuracy/top1"] <= scores["accuracy/top5"] <= 100


def on_coco_format(name: str, root: Path, year: str = "") -> dict[str, str]:
    """Spell out what a detector's user overrides, and what makes two steps quick on a CPU."""
    options = {
        **ONE_PROCESS,
        **NO_CHECKPOINT,
        **for_both(
            dataset__data_root=f"{root}/",
            dataset__ann_file=f"annotations/instances_SPLIT{year}.json",
            dataset__data_prefix__img=f"SPLIT{year}/",
        ),
        "val_evaluator.ann_file": f"{root}/annotations/instances_val{year}.json",
        "train_dataloader.dataset.pipeline.2.scale": "(160,128)",
        "train_dataloader.dataset.indices": "4",
        "val_dataloader.dataset.pipeline.1.scale": "(160,128)",
        "val_dataloader.dataset.indices": "2",
        "model.backbone.init_cfg": "None",
    }
    # Keep what little confidence a model has that has learnt nothing.
    if "retinanet" in name:
        return options | {"train_cfg.max_epochs": "1", "model.test_cfg.score_thr": "0"}
    options |= {
        "model.train_cfg.rpn_proposal.max_per_img": "20",
        "model.train_cfg.rcnn.sampler.num": "8",
        "model.test_cfg.rpn.max_per_img": "5",
        "model.test_cfg.rcnn.score_thr": "0",
    }
    if "-warmup-" in name:
        # as long as in mmdet's own recipe: after a step at the full rate SGDM finds nothing
        options["param_scheduler.0.share"] = str(500 / 300_000)
    if "mask" in name:
        return options | {"train_cfg.max_iters": "2", "train_cfg.val_interval": "2"}
    return options | {"train_cfg.max_epochs": "1"}


@pytest.mark.parametrize("name", configs_of("coco"))
def test_on_coco_photos(name: str, shared_data: Path, tmp_path: Path) -> None:
    options = on_coco_format(name, shared_data / "coco_small", "2017")
    scores = train(CONFIGS / "coco" / f"{name}.py", tmp_path / "run", options)
    assert 0 <= scores["coco/bbox_mAP"] <= 1


@pytest.mark.parametrize("name", [name for name in configs_of("coco") if "mask" in name])
def test_on_nuclei(name: str, shared_data: Path, tmp_path: Path) -> None:
    """Another data set, by the overrides that ``_base_/detection.py`` lists."""
    options = {
        **on_coco_format(name, shared_data / "nuclei"),
        **for_both(dataset__metainfo__classes="[nucleus]"),
        "model.roi_head.bbox_head.num_classes": "1",
        "model.roi_head.mask_head.num_classes": "1",
    }
    scores = train(CONFIGS / "coco" / f"{name}.py", tmp_path / "run", options)
    assert 0 <= scores["coco/bbox_mAP"] <= 1
    assert 0 <= scores["coco/segm_mAP"] <= 1


@pytest.fixture(scope="module")
def novel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Characters as tokens; of GPT-2's 50,257 they are the first 75."""
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.mark.parametrize("name", configs_of("gpt"))
def test_gpt2_on_a_token_file(name: str, novel: Path, tmp_path: Path) -> None:
    options = {
        **ONE_PROCESS,
        **NO_CHECKPOINT,
        **for_both(dataset__data_root=str(novel), pin_memory="False", batch_size="1"),
        "val_dataloader.dataset.windows": "2",
        "optim_wrapper.type": "OptimWrapper",
        "compile": "False",
        # one process sees gradient noise between micro-batches alone
        "optim_wrapper.accumulative_counts": "2",
        "train_cfg.max_iters": "4",
        "train_cfg.val_interval": "4",
    }
    if name != "gpt2-124m_adamw_8xb60-5k":
        options |= {"model.layers": "2", "model.heads": "2", "model.width": "64"}
        options |= {"model.block_size": "64", **for_both(dataset__block_size="64")}
    scores = train(CONFIGS / "gpt" / f"{name}.py", tmp_path / "run", options)
    assert 0 < scores["val/loss"] < 12
