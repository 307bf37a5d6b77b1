"""What replicas train, and on what: small nets on embedded data, or one's own on other data."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from benchmarks.components import type_name
from benchmarks.errors import UsageError
from benchmarks.replicas.folders import coco_files, image_side, number_of_classes, vocabulary

PIECES = Path(__file__).resolve().parents[2] / "configs" / "replica"
TAKEN = ("model", "train_dataloader", "val_dataloader", "val_evaluator", "val_cfg", "default_scope")
"""What of a piece's config takes the place of the original's."""
SMALL_NETS = {
    "MaskRCNN": "digit-scenes_mask-rcnn.py",
    "FasterRCNN": "digit-scenes_faster-rcnn.py",
    "RetinaNet": "digit-scenes_retinanet.py",
}
TASKS = ("classification", "detection", "language")
_TASK_OF = {"CocoMetric": "detection", "TokenLoss": "language"}
"""By what evaluates it; anything else is classification."""
LABEL_NOISE = 0.3
"""Share of labels redrawn in training: without lasting gradients there is no equilibrium."""
MICRO_BATCHES = 2
"""Of a language model's step: the ranks between which noise is seen at full size are one here."""


@dataclass(frozen=True)
class Target:
    """What replicas are made for.

    Attributes:
        task: ``"classification"``, ``"detection"`` or ``"language"``.
        embedded: Whether it is a small net on the suite's own data.
        fit: Gives a copy of a config, with the original's schedule still, model and data; and
            says in a few words what they are.
    """

    task: str
    embedded: bool
    fit: Callable[[Config], tuple[Config, str]]


def task_of(config: Config) -> str:
    """What a config trains, by what it is evaluated by: classification, if nothing else."""
    evaluators = config.get("val_evaluator") or {}
    first = evaluators if isinstance(evaluators, Mapping) else evaluators[0]
    return _TASK_OF.get(type_name(first), "classification")


def embedded_target(task: str) -> Target:
    """Small nets on data that the suite itself makes, in ``data/demo``.

    For classification a BN ResNet of 9 convolutions on digits with label noise, for detection
    a BN miniature of Mask R-CNN, Faster R-CNN or RetinaNet on scenes of digits, for language a
    GPT of two layers on the characters of a novel.

    Args:
        task: ``"classification"``, ``"detection"`` or ``"language"``.

    Raises:
        UsageError: There is no such task.
    """
    fit = {
        "classification": _embedded_classifier,
        "detection": _embedded_detector,
        "language": _embedded_language_model,
    }
    if task not in fit:
        raise UsageError(f"no embedded replica for {task}: there is one for {', '.join(fit)}")
    return Target(task, True, fit[task])


def _embedded_classifier(config: Config) -> tuple[Config, str]:
    return _with_piece(config, "digits.py"), "a small ResNet on digits"


def _embedded_language_model(config: Config) -> tuple[Config, str]:
    fitted = _uncompiled(_with_piece(config, "text.py"))
    # one process sees the noise of gradients between micro-batches
    fitted.optim_wrapper.accumulative_counts = MICRO_BATCHES
    return fitted, "a small GPT on characters"


def _embedded_detector(config: Config) -> tuple[Config, str]:
    kind = type_name(config.model)
    if kind not in SMALL_NETS:
        raise UsageError(f"no small net stands for {kind}; there are {', '.join(SMALL_NETS)}")
    return _with_piece(config, SMALL_NETS[kind]), f"a small {kind} on digit scenes"


def _with_piece(config: Config, name: str) -> Config:
    piece = Config.fromfile(PIECES / name, import_custom_modules=False)
    fitted = _without_tests(config)
    for key in TAKEN:
        fitted[key] = copy.deepcopy(piece[key])
    imports = [*config.get("custom_imports", {}).get("imports", []), *piece.custom_imports.imports]
    fitted.custom_imports = {**piece.custom_imports, "imports": list(dict.fromkeys(imports))}
    return fitted


def folder_target(path: str | Path) -> Target:
    """Configs' own models, transforms and batch, on a data set in the right layout.

    One process trains. Image folders get the labels of their own classes, and 30 % of them
    redrawn at each draw; a classifier gets as many outputs, and so do a detector's heads.

    Args:
        path: ``{train,val}/<class>/*`` for classification; for detection ``annotations/``
            with ``instances_train*.json`` and ``instances_val*.json``, and beside it a folder
            of images for each, named by what follows ``instances_``; for language
            ``{train,val}.bin``, as ``python -m benchmarks prepare`` writes them.

    Raises:
        UsageError: It is none of these.
    """
    folder = Path(path)
    if (folder / "train.bin").is_file():
        return Target("language", False, lambda config: _on_tokens(config, folder))
    if (folder / "annotations").is_dir():
        files = coco_files(folder)
        return Target("detection", False, lambda config: _on_scenes(config, folder, files))
    classes = number_of_classes(folder)
    return Target("classification", False, lambda config: _on_images(config, folder, classes))


def _on_images(config: Config, folder: Path, classes: int) -> tuple[Config, str]:
    fitted = _without_tests(config)
    for split in ("train", "val"):
        dataset = fitted[f"{split}_dataloader"].dataset
        transforms = list(dataset.get("transforms") or [])
        if type_name(dataset) != "ImageFolderDataset":  # one of images of one size
            side = image_side(fitted.train_dataloader.dataset.get("transforms") or [])
            transforms = [
                {"type": "Resize", "size": side},
                {"type": "CenterCrop", "size": side},
                *transforms,
            ]
        noise = {"label_noise": LABEL_NOISE} if split == "train" else {}
        fitted[f"{split}_dataloader"].dataset = {
            "type": "ImageFolderDataset",
            "data_root": str(folder),
            "split": split,
            "transforms": transforms,
            **noise,
        }
    fitted.model.num_classes = classes
    _draw_forever(fitted)
    return fitted, f"{_called(config)} on {folder.name}"


def _on_scenes(
    config: Config, folder: Path, files: Mapping[str, tuple[str, str]]
) -> tuple[Config, str]:
    fitted = _without_tests(config)
    classes = _category_names(folder / files["train"][0])
    for split, (ann_file, images) in files.items():
        dataset = fitted[f"{split}_dataloader"].dataset
        if "ann_file" not in dataset:
            raise UsageError(f"{type_name(dataset)} wraps its data: no other can take its place")
        dataset.data_root = f"{folder}/"
        dataset.ann_file = ann_file
        dataset.data_prefix = {"img": images}
        dataset.metainfo = {"classes": classes}
    for evaluator in _with_key(fitted.val_evaluator, "ann_file"):
        evaluator["ann_file"] = str(folder / files["val"][0])
    for head in _with_key(fitted.model, "num_classes"):
        head["num_classes"] = len(classes)
    _draw_forever(fitted)
    return fitted, f"{_called(config)} on {folder.name}"


def _on_tokens(config: Config, folder: Path) -> tuple[Config, str]:
    fitted = _uncompiled(_without_tests(config))
    for split in ("train", "val"):
        fitted[f"{split}_dataloader"].dataset.data_root = str(folder)
    fitted.model.vocab_size = vocabulary(folder) or fitted.model.vocab_size
    micro = max(1, int(fitted.train_dataloader.batch_size) // MICRO_BATCHES)
    fitted.train_dataloader.batch_size = micro
    fitted.optim_wrapper.accumulative_counts = MICRO_BATCHES
    return fitted, f"{_called(config)} on {folder.name}"


def _uncompiled(config: Config) -> Config:
    """Let it train anywhere: bfloat16 and compiling are for GPUs at full size."""
    config.pop("compile", None)
    config.optim_wrapper.type = "OptimWrapper"
    return config


def _category_names(annotations: Path) -> tuple[str, ...]:
    try:
        categories = json.loads(annotations.read_text(encoding="utf-8"))["categories"]
        return tuple(category["name"] for category in categories)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{annotations} is no COCO annotation file: {error!r}") from error


def _with_key(config: Any, key: str) -> Iterator[dict[str, Any]]:
    if isinstance(config, Mapping):
        if key in config:
            yield config  # type: ignore[misc]
        for value in config.values():
            yield from _with_key(value, key)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _with_key(value, key)


def _called(config: Config) -> str:
    return str(config.model.get("arch") or type_name(config.model))


def _draw_forever(config: Config) -> None:
    """A loop of iterations would start the workers anew after each pass over the data."""
    config.train_dataloader.sampler = {"type": "InfiniteSampler", "shuffle": True}


def _without_tests(config: Config) -> Config:
    """Copy a config without what only testing, and only the original's batch, needs."""
    left_out = ("test_dataloader", "test_evaluator", "test_cfg", "auto_scale_lr")
    return Config({k: v for k, v in copy.deepcopy(config.to_dict()).items() if k not in left_out})
