"""How many iterations an epoch has, by counting the training data without loading any of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATASETS

from .configs import in_a_line, quiet


def processes_of(cfg: Mapping[str, Any]) -> int:
    """Number of processes that ``auto_scale_lr.base_batch_size`` speaks of, or 1."""
    per_process = (cfg.get("train_dataloader") or {}).get("batch_size")
    base = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
    if not per_process or not base or base % per_process:
        return 1
    return int(base // per_process)


def count_iterations(cfg: Mapping[str, Any], processes: int) -> int:
    """Build the training data set, without its images, and count the batches of an epoch.

    Args:
        cfg: The config, its default scope being the current one.
        processes: Processes that share an epoch.

    Raises:
        ValueError: The data set cannot be built here, or the data loader states no batch
            size; the message asks for ``--iters-per-epoch``.
    """
    loader = cfg.get("train_dataloader") or {}
    batch_size = loader.get("batch_size") or (loader.get("batch_sampler") or {}).get("batch_size")
    if not batch_size or not isinstance(loader.get("dataset"), Mapping):
        raise ValueError(
            "the config's train_dataloader does not say how long an epoch is; "
            "give --iters-per-epoch"
        )
    try:
        with quiet():
            dataset = DATASETS.build(copy.deepcopy(loader["dataset"]))
            if hasattr(dataset, "full_init"):
                dataset.full_init()
            examples = len(dataset)
    except Exception as error:
        raise ValueError(
            "how long an epoch is cannot be counted, for the training data is not readable here "
            f"({in_a_line(error)}); give --iters-per-epoch"
        ) from error
    limit = loader.get("num_batch_per_epoch")
    if limit:  # MMEngine cuts the data set to so many batches of each process
        examples = min(examples, limit * batch_size * processes)
    own = math.ceil(examples / processes)
    batches = own // batch_size if loader.get("drop_last") else math.ceil(own / batch_size)
    if batches == 0:
        raise ValueError("the training data set is empty; give --iters-per-epoch")
    return batches
