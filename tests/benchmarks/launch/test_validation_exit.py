"""A run that was told to end in the middle of a validation is, resumed, the one that never was."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from torch.utils.data import DataLoader, Dataset, IterableDataset

from benchmarks.launch.interrupts import ToldToEnd
from benchmarks.launch.runner import SuiteRunner
from benchmarks.launch.validation_exit import batches_of_all_ranks, may_be_left
from tests.benchmarks.launch.test_runner import validations
from tests.benchmarks.launch.tiny import (
    EPOCHS,
    ITERATIONS,
    TellInValidation,
    tiny_runner,
    weights_of,
)


class DrawsInValidation(Hook):
    """What a validation draws of random numbers is none of the training's."""

    def before_val_iter(self, runner: SuiteRunner, batch_idx: int, data_batch: Any = None) -> None:
        torch.randn(5)


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize(
    ("train_cfg", "at", "before"), [(ITERATIONS, 7, 0), (ITERATIONS, 14, 1), (EPOCHS, 12, 1)]
)
@pytest.mark.parametrize("batches", [2, 6])  # 6 are all
def test_told_in_a_validation(
    tmp_path: Path, train_cfg: dict[str, Any], at: int, before: int, batches: int, averaged: bool
) -> None:
    def hooks() -> list[Any]:
        average = [{"type": EMAHook, "ema_type": "ExponentialMovingAverage", "momentum": 0.3}]
        return [DrawsInValidation(), *(average if averaged else [])]

    whole = tiny_runner(tmp_path / "whole", train_cfg, hooks=hooks())
    whole.train()
    told = TellInValidation(at, batches)
    cut = tiny_runner(tmp_path / "cut", train_cfg, hooks=[*hooks(), told])
    with pytest.raises(ToldToEnd, match="goes on with --resume"):
        cut.train()
    assert cut.iter == at
    assert len(validations(tmp_path / "cut")) == before
    resumed = tiny_runner(tmp_path / "cut", train_cfg, hooks=hooks(), resume=True)
    resumed.train()
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert validations(tmp_path / "cut") == validations(tmp_path / "whole")


class Swaps(Hook):
    def before_val_epoch(self, runner: SuiteRunner) -> None: ...

    def after_val_epoch(self, runner: SuiteRunner, metrics: Any = None) -> None: ...


def test_a_validation_that_has_to_be_undone_is_not_left(tmp_path: Path) -> None:
    assert not may_be_left([Swaps()])
    assert may_be_left(tiny_runner(tmp_path, ITERATIONS).hooks)
    told = [Swaps(), TellInValidation(7, 2)]
    with pytest.raises(ToldToEnd):
        tiny_runner(tmp_path, ITERATIONS, hooks=told).train()
    assert len(validations(tmp_path)) == 1


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[int]:
        return itertools.count()


class Seven(Dataset):
    def __len__(self) -> int:
        return 7


def test_batches_of_a_loader() -> None:
    assert batches_of_all_ranks(DataLoader(Seven(), batch_size=2)) == 4
    for unknown in (DataLoader(Endless()), None):
        assert batches_of_all_ranks(unknown) == 0
