"""A watch that is put away in a checkpoint comes to the verdicts it would have come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smd_hooks.measure.invariance_watch import Findings, InvarianceWatch
from smd_hooks.measure.watch_memory import memory_of, remember


class Summed(nn.Module):
    """Two convolutions that are summed before a norm: scale-invariant only together."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv2d(3, 4, 3, bias=False)
        self.other = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.one(images) + self.other(images)))
        return self.fc(features.mean((2, 3))).square().sum()


class Training:
    """A model under a watch; ``state`` is all that a checkpoint would hold."""

    def __init__(self, state: dict[str, Any] | None = None, remembers: bool = True) -> None:
        self.model = Summed()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.step = 0
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
        self.watch = InvarianceWatch(self.model, self.optimizer, self.step)
        if state is not None and remembers:
            assert remember(self.watch, state["memory"])
        self.found: list[tuple[int, Findings]] = []

    def train(self, until: int, frozen_from: int = 10**9) -> None:
        while self.step < until:
            if self.step >= frozen_from:
                self.model.norm.eval()
            torch.manual_seed(self.step)
            self.optimizer.zero_grad()
            self.model(torch.randn(2, 3, 6, 6)).backward()
            self.optimizer.step()
            self.step += 1
            if (findings := self.watch.poll()) is not None:
                self.found.append((self.step, findings))

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "memory": memory_of(self.watch),
        }


def resumed_at(step: int, folder: Path, frozen_from: int, remembers: bool = True) -> list:
    first = Training()
    first.train(step, frozen_from)
    torch.save(first.state(), folder / "state.pth")
    second = Training(torch.load(folder / "state.pth", weights_only=True), remembers)
    if step > frozen_from:
        second.model.norm.eval()
    second.train(40, frozen_from)
    return first.found + second.found


@pytest.mark.parametrize("step", [1, 3, 15, 20, 21, 23, 35])
def test_verdicts_are_those_of_a_watch_never_put_away(step: int, tmp_path: Path) -> None:
    """In an observation, after it, and around a change of mode at step 20."""
    whole = Training()
    whole.train(40, 20)
    assert len(whole.found) == 2
    assert whole.found[0][1].groups[0].members == ("one.weight", "other.weight")
    assert resumed_at(step, tmp_path, 20) == whole.found


@pytest.mark.parametrize("step", [3, 15])
def test_control_one_that_begins_anew_finds_otherwise(step: int, tmp_path: Path) -> None:
    whole = Training()
    whole.train(40)
    assert resumed_at(step, tmp_path, 10**9, remembers=False) != whole.found


def test_another_model_begins_anew(tmp_path: Path) -> None:
    first = Training()
    first.train(15)
    model = nn.Linear(3, 2)
    watch = InvarianceWatch(model, torch.optim.SGD(model.parameters(), lr=0.1), 15)
    assert not remember(watch, memory_of(first.watch))
    assert watch.findings is None
