"""What bfloat16 changes of a step, and what it leaves alone."""

from __future__ import annotations

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from benchmarks.pipelines.precision import BFloat16OptimWrapper


class Net(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 64)
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor, mode: str = "loss") -> dict[str, Tensor]:
        y = self.layer(x)
        self.seen.append(y.dtype)
        return {"loss": y.float().square().mean()}


def step(kind: type[OptimWrapper], **options: int) -> tuple[Net, Tensor]:
    model = Net()
    wrapper = kind(torch.optim.SGD(model.parameters(), lr=1.0), **options)
    for _ in range(options.get("accumulative_counts", 1)):
        model.train_step({"x": torch.ones(4, 64) / 3}, wrapper)
    return model, model.layer.weight.detach()


def test_the_forward_pass_is_bfloat16_and_weights_are_not() -> None:
    model, weight = step(BFloat16OptimWrapper)
    assert model.seen == [torch.bfloat16]
    assert weight.dtype == torch.float32
    exact_model, exact = step(OptimWrapper)
    assert exact_model.seen == [torch.float32]  # the control
    moved = exact - Net().layer.weight.detach()
    assert 0 < (weight - exact).norm() < 0.02 * moved.norm()


def test_gradients_accumulate_as_ever() -> None:
    _, once = step(BFloat16OptimWrapper)
    _, twice = step(BFloat16OptimWrapper, accumulative_counts=2)  # of the same batch: its mean
    torch.testing.assert_close(once, twice)
