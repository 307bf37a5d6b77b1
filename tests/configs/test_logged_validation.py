"""What a log says of a validation is of that validation alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch.nn.functional import cross_entropy

import benchmarks.pipelines.classification  # noqa: F401  registers the parts
from tests.configs.comparing import CONFIGS, load
from tests.configs.test_replica_configs import write_a_digit_a_class

SMOOTHED = ("loss", "time", "data_time", "grad_norm")
DEFAULT = ".*(loss|time|data_time|grad_norm).*"


def train(root: Path, mean_pattern: str | None = None) -> tuple[list[float], float]:
    """Validate after each of four steps.

    Returns:
        The losses of the validations as they are logged, and the last as the weights have it.
    """
    write_a_digit_a_class(root)
    cfg = Config.fromfile(CONFIGS / "demo" / "resnet_digits.py", import_custom_modules=False)
    cfg.merge_from_dict(
        {
            "train_dataloader.dataset.data_root": str(root),
            "val_dataloader.dataset.data_root": str(root),
            "train_dataloader.batch_size": 10,
            "train_cfg.max_iters": 4,
            "train_cfg.val_interval": 1,
            "optim_wrapper.optimizer.lr": 0.5,
            "default_hooks.checkpoint.interval": -1,
            "default_hooks.checkpoint.save_last": False,
            "custom_hooks": [],
            "work_dir": str(root / "work"),
        }
    )
    if mean_pattern:
        cfg.log_processor.mean_pattern = mean_pattern
    runner = Runner.from_cfg(cfg)
    runner.train()
    (file,) = (root / "work").rglob("scalars.json")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    with torch.no_grad():
        batches = [
            runner.model.data_preprocessor(batch, False) for batch in runner.val_loop.dataloader
        ]
        logits = torch.cat([runner.model.network(batch["inputs"]) for batch in batches])
        labels = torch.cat([batch["label"] for batch in batches])
    logged = [line["val/loss"] for line in lines if "val/loss" in line]
    return logged, cross_entropy(logits, labels).item()


def test_the_last_loss_is_not_mixed_with_those_before(tmp_path: Path) -> None:
    logged, last = train(tmp_path)
    assert len(logged) == 4
    assert logged[-1] == pytest.approx(last, rel=1e-4)


def test_mmengine_by_itself_logs_a_mean_of_several(tmp_path: Path) -> None:
    """The control."""
    logged, last = train(tmp_path, DEFAULT)
    assert logged[-1] != pytest.approx(last, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "by_epoch"),
    [
        ("imagenet/resnet50_goyal_8xb32-90e", True),
        ("imagenet/resnet50_constant-lr_8xb32-450k", False),
        ("cifar10/resnet18_sgdm_b128-200e", True),
        ("demo/resnet_digits", False),
    ],
)
def test_training_is_smoothed_as_before(name: str, by_epoch: bool) -> None:
    processor = Runner.build_log_processor(None, dict(load(name).log_processor))
    assert processor.by_epoch is by_epoch
    assert all(processor.mean_pattern.search(key) for key in SMOOTHED)
    assert not any(
        processor.mean_pattern.search(key) for key in ("val/loss", "accuracy/top1", "lr")
    )
