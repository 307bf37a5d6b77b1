"""What a checkpoint holds beside MMEngine's own, for a run to go on exactly."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from mmengine.hooks import EarlyStoppingHook, Hook

from smd_hooks.hooks.runner_access import accumulation_of

if TYPE_CHECKING:
    from .runner import SuiteRunner

_CHECKPOINT_KEY = "benchmarks"
_MMENGINE_WARNS = "the gradient of some iterations is lost"


class ResumePointHook(Hook):
    """Puts into checkpoints what SuiteRunner goes on from, and takes it out again."""

    # when after_val_epoch comes here, loggers have written the validation's results
    priority = "BELOW_NORMAL"

    def after_val_iter(
        self, runner: SuiteRunner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Leave the validation if a signal told so."""
        runner.leave_validation_if_told(batch_idx + 1)

    def after_val_epoch(self, runner: SuiteRunner, metrics: Any = None) -> None:
        """Note that this validation has ended: the best checkpoint is saved right after."""
        runner._validated = runner.iter

    def before_save_checkpoint(self, runner: SuiteRunner, checkpoint: dict) -> None:
        """Add it."""
        meta, loop = checkpoint["meta"], runner.train_loop
        same_epoch = meta["epoch"] == loop.epoch
        checkpoint[_CHECKPOINT_KEY] = {
            "random_states": runner._states,
            "validated": runner._validated == meta["iter"],
            "epoch_began": getattr(loop, "epoch_began", 0) if same_epoch else meta["iter"],
            "gradients": gradients_so_far(runner, meta["iter"]),
            "patience": [(h.wait_count, float(h.best_score)) for h in _early_stopping(runner)],
            "stopped": bool(getattr(loop, "stop_training", False)),
        }

    def after_load_checkpoint(self, runner: SuiteRunner, checkpoint: dict) -> None:
        """Take it out; of no meaning to a run that only begins with these weights."""
        point = checkpoint.get(_CHECKPOINT_KEY) if runner._resume else None
        runner._point = point
        if point is None:
            return
        if point["validated"]:
            runner._validated = checkpoint["meta"]["iter"]
        if point["gradients"]:
            runner.logger.addFilter(_is_true_here)
        hooks = _early_stopping(runner)
        for hook, counted in zip(hooks, point.get("patience", ()), strict=False):
            hook.wait_count, hook.best_score = counted
        # without the hook that stopped it a run is meant to train on
        if hooks and point.get("stopped"):
            runner.train_loop.stop_training = True


def gradients_so_far(runner: SuiteRunner, iteration: int) -> dict[str, torch.Tensor]:
    """What is accumulated for a step that is still to come; of one process, not of several."""
    if runner.world_size > 1 or iteration % accumulation_of(runner) == 0:
        return {}
    parameters = runner.model.named_parameters()
    return {name: p.grad.cpu() for name, p in parameters if p.grad is not None}


def _early_stopping(runner: SuiteRunner) -> list[EarlyStoppingHook]:
    return [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]


def _is_true_here(record: logging.LogRecord) -> bool:
    """A log filter: MMEngine warns of gradients that are lost, which it cannot know are kept."""
    return _MMENGINE_WARNS not in record.getMessage()
