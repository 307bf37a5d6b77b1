"""A run with an EarlyStoppingHook stops where it would have, however often it was ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import EarlyStoppingHook, Hook

from benchmarks.launch.interrupts import ToldToEnd
from benchmarks.launch.runner import SuiteRunner
from tests.benchmarks.launch.tiny import Tell, tiny_runner

TRAIN: dict[str, dict[str, Any]] = {
    "iterations": {"by_epoch": False, "max_iters": 60, "val_interval": 6},
    "epochs": {"by_epoch": True, "max_epochs": 10, "val_interval": 1},
}


def stops(**settings: Any) -> EarlyStoppingHook:
    """No improvement is large enough for it."""
    return EarlyStoppingHook("share", rule="greater", **{"min_delta": 2.0, **settings})


def resumed(folder: Path, train_cfg: dict[str, Any], hook: Any, **settings: Any) -> SuiteRunner:
    runner = tiny_runner(folder, train_cfg, hooks=[hook], resume=True, **settings)
    runner.train()
    return runner


@pytest.mark.parametrize("kind", TRAIN)
def test_what_was_waited_before_counts(tmp_path: Path, kind: str) -> None:
    whole = tiny_runner(tmp_path / "whole", TRAIN[kind], hooks=[stops(patience=4)])
    whole.train()
    assert whole.iter == 30  # the first validation is better than none
    told = [stops(patience=4), Tell(27)]
    with pytest.raises(ToldToEnd):
        tiny_runner(tmp_path / "cut", TRAIN[kind], hooks=told).train()
    hook = stops(patience=4)
    runner = resumed(tmp_path / "cut", TRAIN[kind], hook)
    (wanted,) = (h for h in whole.hooks if isinstance(h, EarlyStoppingHook))
    assert runner.iter == 30
    assert (hook.wait_count, hook.best_score) == (wanted.wait_count, wanted.best_score)


class Killed(Hook):
    priority = "LOWEST"

    def after_val(self, runner: SuiteRunner) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", TRAIN)
def test_killed_after_the_checkpoint_of_the_validation_that_stopped_it(
    tmp_path: Path, kind: str
) -> None:
    best = {"interval": 1, "save_best": "share", "rule": "greater"}
    hooks = [stops(stopping_threshold=-1.0), Killed()]  # stops at once
    with pytest.raises(KeyboardInterrupt):
        tiny_runner(tmp_path, TRAIN[kind], hooks=hooks, checkpoint=best).train()
    assert resumed(tmp_path, TRAIN[kind], stops(), checkpoint=best).iter == 6


def test_without_the_hook_it_trains_on(tmp_path: Path) -> None:
    told = [stops(stopping_threshold=-1.0)]
    runner = tiny_runner(tmp_path, TRAIN["iterations"], hooks=[*told, TellAfterValidation()])
    with pytest.raises(ToldToEnd):
        runner.train()
    assert resumed(tmp_path, TRAIN["iterations"], Hook()).iter == 60


class TellAfterValidation(Hook):
    def after_val(self, runner: SuiteRunner) -> None:
        runner.notice.told_by = "SIGTERM"
