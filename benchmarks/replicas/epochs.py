"""How many iterations the original's epoch has, whether or not its data is at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from benchmarks.components import type_name
from benchmarks.errors import UsageError
from smd_hooks.planning.configs import importable_mmcv
from smd_hooks.planning.epochs import count_iterations, processes_of

IMAGENET = 1_281_167
CIFAR10 = 50_000
COCO_2017 = 118_287
COCO_2017_WITH_OBJECTS = 117_266
"""What is left of it where images without objects are filtered out, as mmdet's configs do."""


def full_epoch(config: Config) -> int | None:
    """Count the iterations of an epoch at full size.

    Args:
        config: The original, for as many processes as its ``auto_scale_lr`` speaks of.

    Returns:
        The number; None where the training loop does not count epochs.

    Raises:
        UsageError: The data set is none of those known here, and not readable either.
    """
    if config.train_cfg.get("max_iters"):
        return None
    loader, processes = config.train_dataloader, processes_of(config)
    images = _images(loader.dataset)
    if images is None:
        try:
            scope = config.get("default_scope") or "mmengine"
            with DefaultScope.overwrite_default_scope(scope), importable_mmcv():
                return count_iterations(config, processes)
        except ValueError as error:
            raise UsageError(str(error).replace("give --iters-per-epoch", "get the data")) from None
    batches = math.ceil(images / processes) / loader.batch_size
    return math.floor(batches) if loader.get("drop_last") else math.ceil(batches)


def _images(dataset: Mapping[str, Any]) -> int | None:
    kind = type_name(dataset)
    if kind == "Cifar10Dataset":
        return CIFAR10
    if kind == "ImageFolderDataset" and Path(dataset["data_root"]).name.lower() == "imagenet":
        return IMAGENET
    if "instances_train2017" in str(dataset.get("ann_file")):
        filters = dataset.get("filter_cfg") or {}
        return COCO_2017_WITH_OBJECTS if filters.get("filter_empty_gt") else COCO_2017
    return None
