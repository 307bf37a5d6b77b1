"""Ends a run whose folder another launch has taken over."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from .claim import Claim


class ClaimHook(Hook):
    """Raises ``RuntimeError`` before anything is written into a folder that is no longer ours.

    Args:
        claim: The claim on the run's work dir.
    """

    # before any other hook writes something
    priority = "VERY_HIGH"

    def __init__(self, claim: Claim) -> None:
        self._claim = claim

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Look at the claim."""
        self._check()

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Look at the claim in a long validation, too."""
        self._check()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Let no checkpoint be written over another launch's."""
        self._check()

    def _check(self) -> None:
        if lost := self._claim.lost:
            raise RuntimeError(lost)
