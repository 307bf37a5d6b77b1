"""Which form steps what, and that a fast form that is wrong does not step anything."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from smd_hooks.optim import c_passes
from smd_hooks.optim.choose_passes import CheckedPasses, passes_for
from smd_hooks.optim.passes import Batch, Direction, TorchPasses

from .batches import batch_of, stepped

CPU = torch.device("cpu")


class Counted(TorchPasses):
    """A form that is right, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def direction_sums(self, batch: Batch, needed: bool = True) -> Tensor | None:
        self.calls += 1
        return super().direction_sums(batch, needed)


class WrongSums(Counted):
    def direction_sums(self, batch: Batch, needed: bool = True) -> Tensor | None:
        sums = super().direction_sums(batch, needed)
        return None if sums is None else sums * (1 + 1e-5)


class WrongWeights(Counted):
    def move(self, batch: Batch, factors: Tensor) -> None:
        super().move(batch, factors)
        batch.weights[1][0, 150] += 0.01


class Broken(Counted):
    def move(self, batch: Batch, factors: Tensor) -> None:
        raise RuntimeError("no such\ninstruction")


def test_each_place_and_dtype_has_its_form() -> None:
    assert isinstance(passes_for(torch.float32, CPU), c_passes.CPasses)
    assert isinstance(passes_for(torch.bfloat16, CPU), TorchPasses)
    assert isinstance(passes_for(torch.float64, CPU), TorchPasses)
    assert isinstance(passes_for(torch.float32, torch.device("meta")), TorchPasses)


def test_without_a_compiler_the_plain_form_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c_passes, "load", lambda: None)
    assert isinstance(passes_for.__wrapped__(torch.float32, CPU), TorchPasses)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("direction", list(Direction))
def test_a_right_form_is_checked_once_per_direction_and_used(
    direction: Direction, dtype: torch.dtype
) -> None:
    fast = Counted()
    checked = CheckedPasses(fast, dtype, CPU)
    batch = batch_of(direction, [(2, 9)], dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            stepped(checked, batch)
    assert fast.calls == 4


@pytest.mark.parametrize(
    ("fast", "says"),
    [
        (WrongSums(), "gives other values"),
        (WrongWeights(), "gives other values"),
        (Broken(), "no such"),
    ],
)
def test_a_wrong_form_is_told_of_once_and_not_used(fast: Counted, says: str) -> None:
    checked = CheckedPasses(fast, torch.float32, CPU)
    batch = batch_of(Direction.ADAM, [(2, 9)])
    with pytest.warns(UserWarning, match=says) as caught:
        results = [stepped(checked, batch) for _ in range(3)]
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert fast.calls == 1
    assert torch.equal(results[-1][0][0], stepped(TorchPasses(), batch)[0][0])
