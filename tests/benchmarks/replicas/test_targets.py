from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from benchmarks.errors import UsageError
from benchmarks.launch import preflight
from benchmarks.pipelines import mmcv_ops
from benchmarks.pipelines.demo_data.text import write_text
from benchmarks.replicas import Target, embedded_target, folder_target
from benchmarks.replicas.targets import task_of
from smd_hooks.planning import read_plan
from tests.conftest import ROOT

mmcv_ops.install()

GOYAL = "imagenet/resnet50_goyal_8xb32-90e"
CIFAR = "cifar10/resnet18_sgdm_b128-200e"
GPT = "gpt/gpt2-124m_adamw_8xb60-5k"
MASK = "coco/mask-rcnn_r50_fpn_syncbn-scratch_4x_coco"
DETECTORS = {
    "MaskRCNN": MASK,
    "FasterRCNN": "coco/faster-rcnn_r50_fpn_1x_coco",
    "RetinaNet": "coco/retinanet_r50_fpn_1x_coco",
}


def load(name: str) -> Config:
    return Config.fromfile(ROOT / "configs" / f"{name}.py")


def write_images(root: Path, *classes: str) -> Path:
    for split in ("train", "val"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            (root / split / name / "0.png").touch()
    return root


def write_scenes(root: Path, *classes: str, split: str = "train") -> Path:
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / f"{split}2017").mkdir()
    (root / f"{split}2017" / "0.jpg").touch()
    coco = {
        "images": [{"id": 1, "file_name": "0.jpg", "height": 4, "width": 4}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 3,
                "bbox": [0, 0, 2, 2],
                "area": 4,
                "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]],
                "iscrowd": 0,
            }
        ],
        "categories": [{"id": 3 + i, "name": name} for i, name in enumerate(classes)],
    }
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(coco))
    return root


def test_the_embedded_classifier_keeps_optimizer_hooks_and_schedule() -> None:
    original = load(GOYAL)
    fitted, words = embedded_target("classification").fit(original)
    assert words == "a small ResNet on digits"
    assert fitted.model.arch == "cifar_resnet"
    assert "mnist_5k" in fitted.train_dataloader.dataset.data_root
    kept = ("optim_wrapper", "param_scheduler", "train_cfg", "custom_hooks", "randomness")
    assert all(fitted[key] == original[key] for key in kept)
    # the batch that learning rates would be scaled by is no longer the original's
    assert "auto_scale_lr" not in fitted


@pytest.mark.parametrize(("kind", "name"), DETECTORS.items())
def test_the_embedded_detector_is_the_originals_kind_and_all_its_convolutions_are_normed(
    kind: str, name: str
) -> None:
    fitted, words = embedded_target("detection").fit(load(name))
    assert (fitted.model.type, words) == (kind, f"a small {kind} on digit scenes")
    assert ("segm" in fitted.val_evaluator.metric) == (kind == "MaskRCNN")
    fitted.train_cfg = dict(type="IterBasedTrainLoop", max_iters=10)
    layers = read_plan(fitted).layers
    assert len(layers.invariant) >= 15
    # all but what predicts
    others = [name for names in layers.others.values() for name in names]
    assert all("head" in name for name in others)
    assert not layers.unknown


def test_there_is_no_small_net_for_every_detector() -> None:
    cfg = load(MASK)
    cfg.model.type = "DETR"
    with pytest.raises(UsageError, match="no small net stands for DETR; there are MaskRCNN"):
        embedded_target("detection").fit(cfg)
    with pytest.raises(UsageError, match="no embedded replica for speech"):
        embedded_target("speech")


def fit(target: Target, name: str) -> Config:
    cfg = target.fit(load(name))[0]
    cfg.work_dir = "work_dirs/none"
    return cfg


def test_image_folders_get_labels_noise_and_as_many_outputs_as_classes(tmp_path: Path) -> None:
    target = folder_target(write_images(tmp_path / "pets", "cat", "dog", "fish"))
    assert (target.task, target.embedded) == ("classification", False)
    cfg = fit(target, GOYAL)
    preflight.check(cfg)
    assert cfg.model.arch == "resnet50"
    assert cfg.model.num_classes == 3
    assert cfg.train_dataloader.dataset.label_noise == 0.3
    assert "label_noise" not in cfg.val_dataloader.dataset
    assert cfg.train_dataloader.sampler.type == "InfiniteSampler"
    transforms = load(GOYAL).train_dataloader.dataset.transforms
    assert cfg.train_dataloader.dataset.transforms == transforms
    assert target.fit(load(GOYAL))[1] == "resnet50 on pets"


def test_photos_are_made_as_small_as_what_they_stand_for(tmp_path: Path) -> None:
    cfg = fit(folder_target(write_images(tmp_path, "cat", "dog")), CIFAR)
    preflight.check(cfg)
    small = [dict(type="Resize", size=32), dict(type="CenterCrop", size=32)]
    own = load(CIFAR).train_dataloader.dataset.transforms
    assert cfg.train_dataloader.dataset.transforms == [*small, *own]
    assert cfg.val_dataloader.dataset.transforms == small


@pytest.mark.parametrize("name", DETECTORS.values())
def test_detectors_get_a_data_sets_own_categories(tmp_path: Path, name: str) -> None:
    write_scenes(tmp_path, "cat", "dog", split="train")
    write_scenes(tmp_path, "cat", "dog", split="val")
    target = folder_target(tmp_path)
    assert (target.task, target.embedded) == ("detection", False)
    cfg = fit(target, name)
    preflight.check(cfg)
    heads = [cfg.model.bbox_head] if "bbox_head" in cfg.model else [cfg.model.roi_head.bbox_head]
    heads += [cfg.model.roi_head.mask_head] if "mask" in name else []
    assert [head.num_classes for head in heads] == [2] * len(heads)
    assert cfg.train_dataloader.dataset.metainfo.classes == ("cat", "dog")
    assert cfg.val_evaluator.ann_file == str(tmp_path / "annotations/instances_val2017.json")


def test_a_folder_in_no_known_layout_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no data set in a known layout"):
        folder_target(tmp_path / "nowhere")
    odd = write_images(tmp_path / "odd", "cat", "dog")
    (odd / "val" / "fish").mkdir()
    with pytest.raises(UsageError, match="train and val differ in class folders, such as 'fish'"):
        folder_target(odd)
    bare = tmp_path / "bare"
    for split in ("train", "val"):
        (bare / split).mkdir(parents=True)
    with pytest.raises(UsageError, match="have no class folders"):
        folder_target(bare)
    half = write_scenes(tmp_path / "half", "cat")
    with pytest.raises(UsageError, match=r"one instances_val\*\.json; it has 0"):
        folder_target(half)
    write_scenes(half, "cat", split="val")
    (half / "val2017" / "0.jpg").unlink()
    (half / "val2017").rmdir()
    with pytest.raises(UsageError, match="no folder of images beside it"):
        folder_target(half)
    (half / "val2017").mkdir()
    (half / "annotations" / "instances_train2017.json").write_text("[]")
    with pytest.raises(UsageError, match="is no COCO annotation file"):
        folder_target(half).fit(load(MASK))


def test_the_embedded_language_model_is_a_small_gpt_with_two_micro_batches() -> None:
    original = load(GPT)
    fitted, words = embedded_target("language").fit(original)
    assert words == "a small GPT on characters"
    assert fitted.model.type == "GPT"
    assert fitted.model.width < original.model.width
    assert fitted.optim_wrapper.accumulative_counts == 2
    assert fitted.optim_wrapper.optimizer == original.optim_wrapper.optimizer
    assert fitted.optim_wrapper.type == "OptimWrapper"
    assert "compile" not in fitted
    assert original.compile  # what was given stays as it was


def test_token_files_keep_the_original_network_and_its_batch(tmp_path: Path) -> None:
    text = write_text(tmp_path)
    target = folder_target(text)
    assert (target.task, target.embedded) == ("language", False)
    original = load(GPT)
    fitted, words = target.fit(original)
    assert words == "GPT on text"
    assert fitted.model == {**original.model, "vocab_size": 75}
    for loader in (fitted.train_dataloader, fitted.val_dataloader):
        assert loader.dataset.data_root == str(text)
    assert fitted.train_dataloader.batch_size * 2 == original.train_dataloader.batch_size
    (text / "meta.json").unlink()  # nanoGPT's own have none
    assert folder_target(text).fit(original)[0].model.vocab_size == 50257
    (text / "meta.json").write_text("{}")
    with pytest.raises(UsageError, match=r"meta.json does not say vocab_size"):
        folder_target(text).fit(original)


def test_pictures_of_no_one_size_cannot_be_replaced(tmp_path: Path) -> None:
    cfg = load(CIFAR)
    cfg.train_dataloader.dataset.transforms = []
    with pytest.raises(UsageError, match="crop to no one size"):
        folder_target(write_images(tmp_path, "cat")).fit(cfg)


@pytest.mark.parametrize(
    ("name", "task"), [(GOYAL, "classification"), (MASK, "detection"), (GPT, "language")]
)
def test_the_task_is_read_off_the_evaluator(name: str, task: str) -> None:
    cfg = load(name)
    assert task_of(cfg) == task
    cfg.val_evaluator = [cfg.val_evaluator]
    assert task_of(cfg) == task
