"""What two processes of one training have to do at the same time, or wait for."""

from __future__ import annotations

import errno
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import Hook

from benchmarks.launch.checkpoint_files import is_whole
from benchmarks.launch.checkpoint_hook import INTERRUPTED
from benchmarks.launch.finite_loss_hook import FiniteLossHook
from benchmarks.launch.interrupts import ToldToEnd
from benchmarks.launch.processes import leave_together, meet_without_gpus
from benchmarks.launch.runner import SuiteRunner
from benchmarks.launch.validation_exit import batches_of_all_ranks
from smd_hooks.records.state import NOT_FINITE
from tests.benchmarks.launch.test_runner import validations
from tests.benchmarks.launch.tiny import (
    EPOCHS,
    ITERATIONS,
    Tell,
    TellInValidation,
    tiny_runner,
    weights_of,
)
from tests.benchmarks.launch.two import in_two_processes


def runner_of_two(folder: Path, train_cfg: dict[str, Any], **settings: Any) -> SuiteRunner:
    return tiny_runner(folder, train_cfg, launcher="pytorch", **settings)


def trained(folder: Path, train_cfg: dict[str, Any], **settings: Any) -> list[Any]:
    """What each of two processes ends with: its weights, or what it raised, in a line."""

    def train(rank: int) -> Any:
        runner = runner_of_two(folder, train_cfg, **settings)
        runner.train()
        return weights_of(runner).tolist()

    return in_two_processes(train)


class SlowToSave(Hook):
    """Saving takes the first process a while."""

    def before_save_checkpoint(self, runner: SuiteRunner, checkpoint: dict) -> None:
        time.sleep(1.0)


def test_no_process_ends_before_the_first_has_written(tmp_path: Path) -> None:
    def told(rank: int) -> bool:
        hooks = [Tell(10), SlowToSave()]
        runner = runner_of_two(tmp_path, ITERATIONS, hooks=hooks, checkpoint={"interval": -1})
        with pytest.raises(ToldToEnd):
            runner.train()
        there = (tmp_path / INTERRUPTED, tmp_path / "last_checkpoint")
        return all(path.exists() for path in there) and is_whole(there[0])

    assert in_two_processes(told) == [True, True]


class Full(Hook):
    def before_save_checkpoint(self, runner: SuiteRunner, checkpoint: dict) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_where_the_first_cannot_write_none_says_that_the_run_goes_on(tmp_path: Path) -> None:
    hooks = [Tell(10), Full()]
    ends = trained(tmp_path, ITERATIONS, hooks=hooks, checkpoint={"interval": -1})
    for end in ends:
        assert end.startswith("OSError: ")
        assert f"{INTERRUPTED} cannot be written (No space left on device)" in end


@pytest.mark.slow
@pytest.mark.parametrize("batches", [2, 3])  # a process has 3; they ask each other at 2
def test_told_in_a_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    monkeypatch.setattr("benchmarks.launch.runner.AGREE_EVERY", 2)
    train_cfg = {"by_epoch": False, "max_iters": 8, "val_interval": 6}
    whole = trained(tmp_path / "whole", train_cfg)
    ends = trained(tmp_path / "cut", train_cfg, hooks=[TellInValidation(6, batches)])
    assert ends == ["ToldToEnd: told to end (SIGTERM); goes on with --resume"] * 2
    assert len(validations(tmp_path / "cut")) == (0 if batches == 2 else 1)
    assert trained(tmp_path / "cut", train_cfg, resume=True) == whole
    assert validations(tmp_path / "cut") == validations(tmp_path / "whole")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize("leave", [leave_together, dist.destroy_process_group])
def test_no_thread_outlives_the_group(tmp_path: Path, leave: Callable[[], None]) -> None:
    """One that did could abort its process; control: torch's function alone leaves some."""

    def train(rank: int) -> None:
        assert runner_of_two(tmp_path, ITERATIONS).train() is not None

    def left(rank: int) -> int:
        gc.disable()  # or it may come in time by chance
        train(rank)
        leave()
        return gloo_threads()

    threads = in_two_processes(left)
    assert (threads == [0, 0]) if leave is leave_together else min(threads) > 0


def gloo_threads() -> int:
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo" in name for name in names)


def test_where_batches_are_uneven_nobody_waits_for_who_has_none_left() -> None:
    def shared(rank: int) -> int:
        meet_without_gpus()
        return batches_of_all_ranks(range(3 - rank))

    assert in_two_processes(shared) == [2, 2]


class DivergesOnTheSecond(Hook):
    """Of the loss that this process reports, not of the weights, as the iteration it begins in."""

    priority = "HIGHEST"

    def after_train_iter(
        self, runner: SuiteRunner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.rank == 1 and runner.iter + 1 == 5:
            outputs["loss"] = torch.tensor(torch.nan)


def test_all_say_that_one_diverged(tmp_path: Path) -> None:
    ends = trained(tmp_path, ITERATIONS, hooks=[DivergesOnTheSecond(), FiniteLossHook()])
    assert ends == [f"FloatingPointError: {NOT_FINITE} since iteration 5"] * 2


@pytest.mark.slow
def test_a_checkpoint_waits_for_the_optimizers_step(tmp_path: Path) -> None:
    """Killed after it, the run loses no gradients."""
    train_cfg = {"by_epoch": False, "max_iters": 14, "val_interval": 7}
    checkpoint = {"interval": 4, "save_best": "share", "rule": "greater"}
    settings: dict[str, Any] = {"accumulate": 3, "checkpoint": checkpoint}
    whole = trained(tmp_path, train_cfg, **settings)
    regular = sorted(int(path.stem.removeprefix("iter_")) for path in tmp_path.glob("iter_*.pth"))
    assert regular == [6, 9, 12, 14]  # due at 4, 8, 12, and at the end
    for iteration in (14, 12, 9):
        (tmp_path / f"iter_{iteration}.pth").unlink()
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_6.pth"))
    assert trained(tmp_path, train_cfg, resume=True, **settings) == whole


@pytest.mark.parametrize("accumulate", [2, 3])  # an epoch of two processes has 3 iterations
def test_epochs_that_end_amid_a_step_are_warned_of(tmp_path: Path, accumulate: int) -> None:
    def warned(rank: int) -> bool:
        runner = runner_of_two(tmp_path, {**EPOCHS, "max_epochs": 1}, accumulate=accumulate)
        lines: list[str] = []
        runner.logger.warning = lines.append  # type: ignore[method-assign]
        runner.train()
        return any("epochs of 3 iterations do not end with an optimizer step" in x for x in lines)

    assert in_two_processes(warned) == [accumulate == 2, False]
