"""Ends a run whose loss is no longer a number, and says at which iteration it began."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from smd_hooks.records.state import NOT_FINITE


class FiniteLossHook(Hook):
    """Raises ``FloatingPointError`` when the training loss is NaN or infinite.

    The first bad iteration is kept on the device and read back every 50 iterations
    there, so that watching costs no synchronisation; on a CPU it is read every time.
    ``python -m benchmarks run`` registers it with every run.
    """

    # before any other hook makes something of the broken weights
    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._first_bad: Tensor | None = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note whether this iteration's loss is finite."""
        loss = (outputs or {}).get("loss")
        if not torch.is_tensor(loss):
            return
        if self._first_bad is None:
            self._first_bad = torch.full((), -1, dtype=torch.int64, device=loss.device)
        is_first = ~torch.isfinite(loss.detach()).all() & (self._first_bad < 0)
        self._first_bad = torch.where(is_first, runner.iter + 1, self._first_bad)
        if loss.device.type == "cpu" or self.every_n_train_iters(runner, 50):
            self._check()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Let no checkpoint of broken weights be written."""
        self._check()

    def after_train(self, runner: Runner) -> None:
        """Look at the last iterations, too."""
        self._check()

    def _check(self) -> None:
        iteration = -1 if self._first_bad is None else int(self._first_bad.item())
        if iteration >= 0:
            raise FloatingPointError(f"{NOT_FINITE} since iteration {iteration}")
