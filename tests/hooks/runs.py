"""The smallest real MMEngine run: one BN conv and a classifier on made-up images."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader


class TinyModel(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, inputs: Tensor, labels: Tensor, mode: str = "tensor") -> Any:
        features = torch.relu(self.bn(self.conv(inputs))).mean((2, 3))
        logits = self.fc(features)
        return {"loss": nn.functional.cross_entropy(logits, labels)} if mode == "loss" else logits


def tiny_data(batches: int = 40) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batches * 4, 3, 8, 8, generator=generator)
    return [(image, torch.tensor(i % 4)) for i, image in enumerate(images)]


def tiny_runner(
    work_dir: Path,
    hooks: list[dict[str, Any]],
    iterations: int = 40,
    optimizer: Any = None,
    milestones: tuple[int, ...] = (),
    accumulation: int = 1,
    **settings: Any,
) -> Runner:
    model = TinyModel()
    if optimizer is None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    elif callable(optimizer):
        optimizer = optimizer(model)
    return Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=DataLoader(tiny_data(), batch_size=4),
        train_cfg={"by_epoch": False, "max_iters": iterations},
        optim_wrapper=OptimWrapper(optimizer, accumulative_counts=accumulation),
        param_scheduler=[
            {"type": "MultiStepLR", "by_epoch": False, "milestones": list(milestones), "gamma": 0.1}
        ],
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": 10},
            "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 20},
        },
        custom_hooks=hooks,
        default_scope="mmengine",
        log_level="ERROR",
        # MMEngine keeps one logger and visualizer per name and second
        experiment_name=uuid.uuid4().hex,
        **settings,
    )
