"""The smallest run that draws random numbers everywhere: data, model, and order of the data."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.launch.runner import SuiteRunner


class NoisyVectors(Dataset):
    """Vectors under noise of each of the three generators, drawn anew each time."""

    def __init__(self, size: int = 24) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = torch.randn(6) + np.random.normal() + random.random()  # noqa: NPY002
        return {"inputs": noise + float(index), "label": index % 3}


class TinyModel(BaseModel):
    """Two layers with dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, inputs: Tensor, label: Tensor, mode: str = "tensor") -> Any:
        logits = self.layers(inputs)
        if mode == "loss":
            return {"loss": nn.functional.cross_entropy(logits, label)}
        return [{"right": bool(r)} for r in logits.argmax(1) == label]


class Share(BaseMetric):
    """Share of the right answers."""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        self.results += [sample["right"] for sample in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        return {"share": sum(results) / len(results)}


class Tell(Hook):
    """Tells the run to end when so many iterations are done."""

    def __init__(self, after: int, signal_name: str = "SIGTERM") -> None:
        self.after, self.signal_name = after, signal_name

    def after_train_iter(self, runner: SuiteRunner, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.after:
            runner.notice.told_by = self.signal_name


class TellInValidation(Hook):
    """Tells the run to end when so many batches of a validation are done."""

    def __init__(self, at: int, batches: int) -> None:
        self.at, self.batches = at, batches

    def after_val_iter(
        self, runner: SuiteRunner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if (runner.iter, batch_idx + 1) == (self.at, self.batches):
            runner.notice.told_by = "SIGTERM"


class QuickRunner(SuiteRunner):
    """Asks no compiler for its version."""

    def _log_env(self, env_cfg: dict) -> None:
        pass


def tiny_runner(
    work_dir: Path,
    train_cfg: dict[str, Any],
    resume: bool = False,
    checkpoint: dict[str, Any] | None = None,
    hooks: Sequence[Any] = (),
    workers: int = 0,
    seed: int | None = 0,
    launcher: str = "none",
    accumulate: int = 2,
) -> SuiteRunner:
    """A run of 24 vectors, 4 at a time: 6 iterations are an epoch of one process."""
    by_epoch = train_cfg["by_epoch"]
    sampler = "DefaultSampler" if by_epoch else "InfiniteSampler"
    settings: dict[str, Any] = {
        "work_dir": str(work_dir),
        "train_cfg": train_cfg,
        "randomness": {"seed": seed},
        "resume": resume,
        "launcher": launcher,
    }
    loader: dict[str, Any] = {
        "batch_size": 4,
        "num_workers": workers,
        "dataset": NoisyVectors(),
        "collate_fn": {"type": "default_collate"},
    }
    runner = QuickRunner(
        model=TinyModel(),
        train_dataloader={**loader, "sampler": {"type": sampler, "shuffle": True}},
        val_dataloader={**loader, "sampler": {"type": "DefaultSampler", "shuffle": False}},
        val_cfg={},
        val_evaluator=[Share()],
        optim_wrapper={
            "optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9},
            "accumulative_counts": accumulate,
        },
        param_scheduler={"type": "ExponentialLR", "gamma": 0.9, "by_epoch": by_epoch},
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": 1},
            "checkpoint": {
                "type": "CheckpointHook",
                "by_epoch": by_epoch,
                **(checkpoint or {"interval": 2}),
            },
        },
        custom_hooks=list(hooks),
        log_processor={"by_epoch": by_epoch},
        log_level="ERROR",
        experiment_name=uuid.uuid4().hex,
        cfg=Config(settings),
        **settings,
    )
    runner.notice = type(runner.notice)()
    return runner


ITERATIONS = {"by_epoch": False, "max_iters": 14, "val_interval": 7}
EPOCHS = {"by_epoch": True, "max_epochs": 3, "val_interval": 1}


def weights_of(runner: SuiteRunner) -> Tensor:
    """All weights as one vector."""
    return torch.cat([p.detach().flatten() for p in runner.model.parameters()])
