"""Everything that can be known to be wrong before a Runner is built and a file is written."""

from __future__ import annotations

import importlib
import itertools
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, OPTIMIZERS, PARAM_SCHEDULERS

from benchmarks.components import OF_THE_REGISTRY, check_component, type_name
from benchmarks.errors import UsageError


def check(cfg: Config) -> None:
    """Check work dir, checkpoints, precision, hooks, schedules and data sets of a config.

    Raises:
        UsageError: With one line that says what is wrong, where, and what to do.
    """
    checks = {
        "work_dir": _check_work_dir,
        "checkpoint": _check_checkpoint,
        "optim_wrapper": _check_optimizer,
        "hooks": _check_hooks,
        "data": _check_data,
    }
    for part, check_part in checks.items():
        try:
            check_part(cfg)
        except UsageError:
            raise
        except Exception as error:  # values of a kind that nobody expects there
            line = " ".join(str(error).split())
            raise UsageError(
                f"the config's {part} cannot be used: {type(error).__name__}: {line}"
            ) from error


def _check_work_dir(cfg: Config) -> None:
    work_dir = Path(cfg.work_dir)
    for folder in (work_dir, *work_dir.absolute().parents):
        if folder.is_dir():
            if not os.access(folder, os.W_OK | os.X_OK):
                raise UsageError(f"work dir {work_dir}: {folder} is not writable; choose another")
            return
        if folder.exists() or folder.is_symlink():
            raise UsageError(
                f"work dir {work_dir}: {folder} is a file, not a folder; move it away or choose "
                "another with --work-dir"
            )


def _check_checkpoint(cfg: Config) -> None:
    path = cfg.get("load_from")
    if not path or "://" in path:  # what --resume finds in the work dir, the Runner looks at
        return
    if not Path(path).is_file():
        raise UsageError(f"checkpoint {path} does not exist; set load_from")
    # what torch.save has written since 1.6 is a zip; a cut-off one is none
    if not zipfile.is_zipfile(path):
        raise UsageError(f"checkpoint {path} is cut off or no checkpoint; resume from another")


def _check_optimizer(cfg: Config) -> None:
    if type_name(cfg.optim_wrapper) == "AmpOptimWrapper" and not torch.cuda.is_available():
        raise UsageError(
            "mixed precision (--amp, AmpOptimWrapper) needs a GPU and none is visible; "
            "leave it out or set optim_wrapper.type=OptimWrapper"
        )
    schedulers = cfg.get("param_scheduler") or []
    with OPTIMIZERS.switch_scope_and_registry(cfg.get("default_scope")) as registry:
        if "optimizer" in cfg.optim_wrapper:
            check_component(cfg.optim_wrapper.optimizer, registry, "optimizer")
    with PARAM_SCHEDULERS.switch_scope_and_registry(cfg.get("default_scope")) as registry:
        for scheduler in [schedulers] if isinstance(schedulers, Mapping) else schedulers:
            options = {k: v for k, v in scheduler.items() if k != "convert_to_iter_based"}
            check_component(options, registry, "param_scheduler")


def _check_hooks(cfg: Config) -> None:
    hooks = [*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or [])]
    with HOOKS.switch_scope_and_registry(cfg.get("default_scope")) as registry:
        for hook in hooks:
            if isinstance(hook, Mapping):
                _check_hook(hook, registry)


def _check_hook(hook: Mapping[str, Any], registry: Any) -> None:
    found = check_component(hook, registry, "hook")
    if found is not None and found.__module__.startswith("smd_hooks"):
        options = {k: v for k, v in hook.items() if k not in OF_THE_REGISTRY}
        try:
            found(**options)
        except ValueError as error:
            raise UsageError(str(error)) from None


def _check_data(cfg: Config) -> None:
    by_split: dict[str, list[Mapping[str, Any]]] = {}
    for split in ("train", "val"):  # training never builds the test loader
        loader = cfg.get(f"{split}_dataloader")
        if loader:
            by_split[split] = list(leaf_datasets(loader["dataset"]))
    for split, datasets in by_split.items():
        for dataset in datasets:
            _check_dataset(dataset, split, cfg)
    train, val = by_split.get("train", []), by_split.get("val", [])
    if train and _is_image_folder(train[0]):
        classification = importlib.import_module("benchmarks.pipelines.classification.check")
        if val and _is_image_folder(val[0]):
            classification.check_same_classes(train[0], val[0])
        if "num_classes" in cfg.model:
            classification.check_num_classes(train[0], cfg.model.num_classes)
    if train and _is_annotated(train[0], cfg):
        detection = importlib.import_module("benchmarks.pipelines.detection.check")
        if val and _is_annotated(val[0], cfg):
            detection.check_same_classes(train[0], val[0])
        detection.check_num_classes(train[0], cfg.model)
    for one, other in itertools.product(train, val):
        _check_other_data(one, other, cfg)
    if type_name(cfg.model) == "GPT":
        language = importlib.import_module("benchmarks.pipelines.language.check")
        for dataset in filter(_is_token_file, itertools.chain(train, val)):
            language.check_model(dataset, cfg.model)


def leaf_datasets(dataset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the data sets inside wrappers such as RepeatDataset and ConcatDataset."""
    inner = [dataset["dataset"]] if "dataset" in dataset else list(dataset.get("datasets", []))
    if not inner:
        yield dataset
    for item in inner:
        yield from leaf_datasets(item)


def _is_image_folder(dataset: Mapping[str, Any]) -> bool:
    return type_name(dataset) == "ImageFolderDataset"


def _is_token_file(dataset: Mapping[str, Any]) -> bool:
    return type_name(dataset) == "TokenFileDataset"


def _check_dataset(dataset: Mapping[str, Any], split: str, cfg: Config) -> None:
    if _is_image_folder(dataset):
        classification = importlib.import_module("benchmarks.pipelines.classification.check")
        classification.check_dataset(dataset)
    elif type_name(dataset) == "Cifar10Dataset":
        importlib.import_module("benchmarks.pipelines.classification.cifar10").check_dataset(
            dataset
        )
    elif _is_token_file(dataset):
        importlib.import_module("benchmarks.pipelines.language.check").check_dataset(dataset)
    elif _is_annotated(dataset, cfg):
        detection = importlib.import_module("benchmarks.pipelines.detection.check")
        detection.check_dataset(dataset)
        evaluators = cfg.get(f"{split}_evaluator") or []
        for evaluator in [evaluators] if isinstance(evaluators, Mapping) else evaluators:
            detection.check_evaluator(evaluator, dataset)


def _check_other_data(train: Mapping[str, Any], val: Mapping[str, Any], cfg: Config) -> None:
    if _is_image_folder(train) and _is_image_folder(val):
        classification = importlib.import_module("benchmarks.pipelines.classification.check")
        classification.check_other_images(train, val)
    elif _is_annotated(train, cfg) and _is_annotated(val, cfg):
        detection = importlib.import_module("benchmarks.pipelines.detection.check")
        detection.check_other_images(train, val)
    elif _is_token_file(train) and _is_token_file(val):
        language = importlib.import_module("benchmarks.pipelines.language.check")
        language.check_same_encoding(train, val)


def _is_annotated(dataset: Mapping[str, Any], cfg: Config) -> bool:
    """Whether it is mmdet's, with a file of annotations."""
    if "ann_file" not in dataset:
        return False
    kind = dataset.get("type")
    module = getattr(kind, "__module__", str(kind))  # a class, in new-style configs
    return cfg.get("default_scope") == "mmdet" or module.startswith("mmdet.")
