"""Ends a run whose loss is no longer a number, and says at which iteration it began."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from smd_hooks.records.state import NOT_FINITE

_NEVER = torch.iinfo(torch.int64).max


class FiniteLossHook(Hook):
    """Raises ``FloatingPointError`` when the training loss is NaN or infinite.

    The first bad iteration is kept on the device and read back every 50 iterations
    there, so that watching costs no synchronisation; on a CPU it is read every time. Processes
    that train together read the first one of all, and end alike.
    ``python -m benchmarks run`` registers it with every run.
    """

    # before any other hook makes something of the broken weights
    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._first_bad = torch.tensor(_NEVER)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note whether this iteration's loss is finite."""
        loss = (outputs or {}).get("loss")
        if not torch.is_tensor(loss):
            return
        self._first_bad = self._first_bad.to(loss.device)
        now = torch.full_like(self._first_bad, runner.iter + 1)
        is_first = ~torch.isfinite(loss.detach()).all() & (self._first_bad > now)
        self._first_bad = torch.where(is_first, now, self._first_bad)
        if loss.device.type == "cpu" or self.every_n_train_iters(runner, 50):
            self._check()

    def before_save_on_all_ranks(self, runner: Runner) -> None:
        """Let no checkpoint of broken weights be written."""
        self._check()

    def after_train(self, runner: Runner) -> None:
        """Look at the last iterations, too."""
        self._check()

    def _check(self) -> None:
        """Raise on all processes where any has seen a bad iteration: a collective."""
        all_reduce(self._first_bad, "min")
        iteration = int(self._first_bad.item())
        if iteration < _NEVER:
            raise FloatingPointError(f"{NOT_FINITE} since iteration {iteration}")
