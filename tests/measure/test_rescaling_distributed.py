from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from smd_hooks.measure.probe import RESCALE_KEY
from smd_hooks.measure.rescaling import EPS_SHARE, EquilibriumRescaling
from smd_hooks.measure.sharding import whole
from tests.measure.processes import on_two_processes
from tests.measure.test_rescaling import OPTIMIZERS, WEIGHTS, Net, set_lr, train


def rescaled(model: Net) -> dict[str, Any]:
    """One step, a drop by 10, and what weight and optimizer look like then."""
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    train(model, optimizer)
    rescaling = EquilibriumRescaling(optimizer, model, WEIGHTS)
    rescaling.follow(1)
    set_lr(optimizer, 0.01)
    rescaling.follow(1)
    train(model, optimizer)
    state = optimizer.state[model.conv.weight]
    found = {key: whole(state[key]) for key in ("exp_avg", "exp_avg_sq")}
    weight = whole(model.conv.weight).detach()
    return {"weight": weight, "factor": state[RESCALE_KEY], **found}


def sharded(rank: int) -> dict[str, Any]:
    model = Net(nn.BatchNorm2d(8))
    fully_shard(model.conv)
    fully_shard(model)
    return rescaled(model)


def unequal(rank: int) -> float:
    """Processes of DDP, whose running variances are their own; eps allows one to follow."""
    model = Net()
    model.norm.running_var.fill_(1.0 + rank)
    model.norm.eps = EPS_SHARE * 0.1 * 1.5
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    rescaling = EquilibriumRescaling(optimizer, model, WEIGHTS)
    train(model.eval(), optimizer)
    rescaling.follow(1)
    set_lr(optimizer, 0.01)
    return float(len(rescaling.follow(1)))


@pytest.mark.slow
def test_sharded_weights_are_rescaled_as_whole_ones(tmp_path: Path) -> None:
    expected = rescaled(Net())
    assert expected["factor"] == pytest.approx(10**-0.5)
    for found in on_two_processes(tmp_path, sharded):
        for name, value in expected.items():
            assert torch.allclose(
                torch.as_tensor(found[name]), torch.as_tensor(value), rtol=1e-4, atol=1e-7
            ), name


@pytest.mark.slow
def test_processes_decide_alike(tmp_path: Path) -> None:
    assert unequal(1) == 1  # alone it would follow
    assert on_two_processes(tmp_path, unequal) == [0, 0]
