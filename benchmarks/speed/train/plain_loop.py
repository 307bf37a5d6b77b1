"""ResNet-50 as torchvision's users train it: no Runner, no hooks, no records."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet50
from torchvision.transforms import v2

from benchmarks.speed.train.phases import BACKWARD, FORWARD, INPUT, STEP, WHOLE, Phases

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def plain_loop(
    data_root: Path,
    batch: int,
    workers: int,
    device: torch.device,
    phases: Phases,
    hand_over: Callable[[dict[str, float]], None],
    steps: int,
) -> None:
    """Train on ``data_root/train`` for as long as turns are handed out.

    On a GPU in bfloat16 and channels_last, as the Runner beside it.
    """
    transforms = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(224, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, DEVIATION),
        ]
    )
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        ImageFolder(data_root / "train", transforms),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=on_gpu,
        persistent_workers=workers > 0,
    )
    layout = torch.channels_last if on_gpu else torch.contiguous_format
    network = resnet50(zero_init_residual=True).to(device, memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=1e-4)
    hand_over({})
    done = 0
    phases.mark(WHOLE)
    phases.mark(INPUT)
    for _ in count():
        for images, labels in loader:
            images = images.to(device, memory_format=layout, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            phases.mark(INPUT)
            phases.mark(FORWARD)
            with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
                loss = cross_entropy(network(images), labels)
            phases.mark(FORWARD)
            optimizer.zero_grad()
            phases.mark(BACKWARD)
            loss.backward()
            phases.mark(BACKWARD)
            phases.mark(STEP)
            optimizer.step()
            phases.mark(STEP)
            done += 1
            if done % steps == 0:
                phases.mark(WHOLE)
                hand_over(phases.read())
                phases.mark(WHOLE)
            phases.mark(INPUT)
