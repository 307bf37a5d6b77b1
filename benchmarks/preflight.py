"""Everything that can be known to be wrong before a Runner is built and a file is written."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import HOOKS

from benchmarks.errors import UsageError


def check(cfg: Config) -> None:
    """Check data sets, hooks, work dir and precision of a config.

    Raises:
        UsageError: With one line that says what is wrong, where, and what to do.
    """
    _check_work_dir(Path(cfg.work_dir))
    _check_precision(cfg)
    _check_hooks(cfg)
    _check_data(cfg)


def _check_work_dir(work_dir: Path) -> None:
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


def _check_precision(cfg: Config) -> None:
    if str(cfg.optim_wrapper.get("type")).endswith("AmpOptimWrapper") and not (
        torch.cuda.is_available()
    ):
        raise UsageError(
            "mixed precision (--amp, AmpOptimWrapper) needs a GPU and none is visible; "
            "leave it out or set optim_wrapper.type=OptimWrapper"
        )


def _check_hooks(cfg: Config) -> None:
    hooks = [*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or [])]
    with HOOKS.switch_scope_and_registry(cfg.get("default_scope")) as registry:
        for hook in hooks:
            if isinstance(hook, Mapping):
                _check_hook(dict(hook), registry)


def _check_hook(hook: dict[str, Any], registry: Any) -> None:
    name = hook.pop("type", None)
    found = name if inspect.isclass(name) else registry.get(str(name))
    if found is None:
        raise UsageError(
            f"hook '{name}' is not registered{_suggest(str(name), HOOKS.module_dict)}; name the "
            "module that defines it in custom_imports"
        )
    for of_the_registry in ("priority", "_scope_"):
        hook.pop(of_the_registry, None)
    parameters = inspect.signature(found).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option in hook:
        if option not in parameters:
            known = ", ".join(parameters) or "none"
            raise UsageError(
                f"{found.__name__}: unknown option '{option}'{_suggest(option, parameters)}; "
                f"its options are: {known}"
            )
    if found.__module__.startswith("smd_hooks"):
        try:
            found(**hook)
        except ValueError as error:
            raise UsageError(str(error)) from None


def _suggest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


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
    if train and val and _is_image_folder(train[0]) and _is_image_folder(val[0]):
        classification = importlib.import_module("benchmarks.pipelines.classification.check")
        classification.check_same_classes(train[0], val[0])
        if "num_classes" in cfg.model:
            classification.check_num_classes(train[0], cfg.model.num_classes)


def leaf_datasets(dataset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the data sets inside wrappers such as RepeatDataset and ConcatDataset."""
    inner = [dataset["dataset"]] if "dataset" in dataset else list(dataset.get("datasets", []))
    if not inner:
        yield dataset
    for item in inner:
        yield from leaf_datasets(item)


def _is_image_folder(dataset: Mapping[str, Any]) -> bool:
    return str(dataset.get("type")) == "ImageFolderDataset"


def _check_dataset(dataset: Mapping[str, Any], split: str, cfg: Config) -> None:
    if _is_image_folder(dataset):
        classification = importlib.import_module("benchmarks.pipelines.classification.check")
        classification.check_dataset(dataset)
    elif cfg.get("default_scope") == "mmdet" and "ann_file" in dataset:
        detection = importlib.import_module("benchmarks.pipelines.detection.check")
        detection.check_dataset(dataset)
        evaluators = cfg.get(f"{split}_evaluator") or []
        for evaluator in [evaluators] if isinstance(evaluators, Mapping) else evaluators:
            detection.check_evaluator(evaluator, dataset)
