"""The small trainings that are killed, and what must be the same of two of them."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.pipelines.demo_data.digits import write_digits
from benchmarks.pipelines.demo_data.scenes import write_scenes
from smd_hooks import load_runs
from tests.conftest import ROOT

IMAGES = {"train": 12, "val": 4}
"""Digits of each class."""


@dataclass(frozen=True)
class Case:
    """A training that is killed.

    Attributes:
        name: What it is called.
        config: Its config file.
    """

    name: str
    config: Path

    def command(self, parent: Path) -> list[str]:
        """Arguments of ``python -m benchmarks`` that train it in a folder of its name."""
        return ["run", str(self.config), "--work-dir", str(parent / self.name)]


def trainings(folder: Path) -> list[Case]:
    """Write configs and data of three trainings: by iterations, by epochs, and of a detector.

    All have random augmentation, keep their last two checkpoints and the best one, validate
    and record; the second has two worker processes and averaged weights.
    """
    digits = _few_digits(folder)
    scenes = write_scenes(folder)
    configs = {
        "iterations": _ITERATIONS.format(root=ROOT, data=digits),
        "epochs": _EPOCHS.format(root=ROOT, data=digits),
        "detector": _DETECTOR.format(root=ROOT, data=scenes),
    }
    cases = []
    for name, text in configs.items():
        path = folder / f"{name}.py"
        path.write_text(text)
        cases.append(Case(name, path))
    return cases


def _few_digits(folder: Path) -> Path:
    whole, few = write_digits(folder), folder / "few_digits"
    for split, count in IMAGES.items():
        for of_class in sorted((whole / split).iterdir()):
            (few / split / of_class.name).mkdir(parents=True, exist_ok=True)
            for image in sorted(of_class.iterdir())[:count]:
                shutil.copy(image, few / split / of_class.name)
    return few


_CLASSIFICATION = """
_base_ = ["{root}/configs/replica/digits.py"]
train_dataloader = dict(batch_size=8, dataset=dict(data_root="{data}"))
val_dataloader = dict(batch_size=20, dataset=dict(data_root="{data}"))
"""
_ITERATIONS = (
    _CLASSIFICATION
    + """
param_scheduler = dict(milestones=[24])
train_cfg = dict(max_iters=40, val_interval=8)
default_hooks = dict(
    logger=dict(interval=4),
    checkpoint=dict(interval=4, max_keep_ckpts=2, save_best="accuracy/top1"),
)
custom_hooks = [dict(type="SMDHook", interval=1, per_filter=True)]
"""
)
_EPOCHS = (
    _CLASSIFICATION
    + """
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(_delete_=True, type="DefaultSampler", shuffle=True),
    dataset=dict(data_root="{data}"),
)
val_dataloader = dict(batch_size=20, num_workers=1, dataset=dict(data_root="{data}"))
optim_wrapper = dict(accumulative_counts=2)  # an epoch has 15 iterations
param_scheduler = dict(_delete_=True, type="CosineAnnealingLR", by_epoch=True, T_max=4)
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=4, val_interval=2)
log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(interval=4, log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=1, max_keep_ckpts=2, save_best="accuracy/top1"),
)
custom_hooks = [dict(type="EMAHook", momentum=0.1), dict(type="SMDHook", interval=3)]
"""
)
_DETECTOR = """
_base_ = ["{root}/configs/replica/digit-scenes_faster-rcnn.py"]
train_dataloader = dict(
    batch_size=2,
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        data_root="{data}/",
        indices=40,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
val_dataloader = dict(batch_size=4, dataset=dict(data_root="{data}/", indices=4))
val_evaluator = dict(ann_file="{data}/annotations/instances_val.json")
param_scheduler = dict(milestones=[10])
train_cfg = dict(max_iters=16, val_interval=8)
default_hooks = dict(
    logger=dict(interval=2),
    checkpoint=dict(interval=2, max_keep_ckpts=2),
)
custom_hooks = [dict(type="SMDHook", interval=2)]
"""


@dataclass
class Trained:
    """What a training has left.

    Attributes:
        checkpoint: Its last one, without what tells time and place.
        samples: Its records.
        weights: What is known of each weight; without when this launch began.
        logged: Its losses and metrics.
        problems: What is broken on disk, or not ended.
    """

    checkpoint: dict[str, Any]
    samples: pd.DataFrame
    weights: pd.DataFrame
    logged: pd.DataFrame
    problems: list[str]

    @classmethod
    def read(cls, work_dir: Path) -> Trained:
        """Read a work dir."""
        problems = []
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            (run,) = load_runs(work_dir)
            samples = run.samples
            samples = samples.sort_values(["step", "weight", "unit"], ignore_index=True)
        problems += [str(w.message) for w in said if ".parquet" in str(w.message)]
        if run.status != "finished":
            problems.append(f"is {run.status}")
        parts = [path.name for path in work_dir.glob(".*.part")]
        problems += [f"{name} was left behind" for name in parts]
        last = Path((work_dir / "last_checkpoint").read_text())
        content = torch.load(last, weights_only=False)
        checkpoint = {key: content.get(key) for key in _SAME}
        hub = content["message_hub"]["log_scalars"]
        checkpoint["logged"] = {
            key: list(hub[key].data) for key in sorted(hub) if "time" not in key
        }
        checkpoint["kept"] = sorted(path.name for path in work_dir.glob("*.pth"))
        weights = run.weights.drop(columns="first_step")
        # of several launches, what is not measured has an empty history instead of none
        weights["changes"] = [c if isinstance(c, list) else [] for c in weights["changes"]]
        return cls(checkpoint, samples, weights, run.scalars.history, problems)


_SAME = (
    "state_dict",
    "ema_state_dict",
    "optimizer",
    "param_schedulers",
    "benchmarks",
    "smd_hooks",
    "smd_hooks_memory",
)


def differences(whole: Trained, killed: Trained) -> list[str]:
    """Say in lines what a training that was killed and resumed has not as the other, bit by bit."""
    found = [f"problem: {line}" for line in killed.problems]
    found += _unlike(whole.checkpoint, killed.checkpoint, "")
    for name in ("samples", "weights", "logged"):
        try:
            pd.testing.assert_frame_equal(
                getattr(whole, name), getattr(killed, name), check_exact=True
            )
        except AssertionError as error:
            found.append(f"{name}: {' '.join(str(error).split())[:300]}")
    return found


def _unlike(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from _unlike(one[key], other[key], f"{where}/{key}")
    elif (
        isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other)
    ):
        for place, pair in enumerate(zip(one, other, strict=True)):
            yield from _unlike(*pair, f"{where}/{place}")
    elif not _same(one, other):
        yield f"checkpoint{where}: {_short(one)} became {_short(other)}"


def _same(one: Any, other: Any) -> bool:
    if torch.is_tensor(one) and torch.is_tensor(other):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    return type(one) is type(other) and one == other


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return f"keys {sorted(map(str, value))[:8]}"
    return " ".join(str(value).split())[:60]
