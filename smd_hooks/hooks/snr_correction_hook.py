"""Corrects LionAR's angles for the gradients' signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..measure.stepping import check_interval
from ..optim.snr_correction import SNRCorrection
from .runner_access import accumulation_of, batch_size_of, single_optimizer, unwrapped_model

CHECKPOINT_KEY = "smd_snr_correction"


@HOOKS.register_module()
class SNRCorrectionHook(Hook):
    """Makes angles smaller while a batch's examples agree, as at the start of training.

    The noise is seen in the differences between micro-batches of gradient accumulation, or
    between the ranks of DDP: there must be two batches or more per step. See
    :class:`smd_hooks.optim.snr_correction.SNRCorrection` for what is done.

    Args:
        layers: Names of modules, or shell-style patterns of them, whose weights are corrected.
        interval: Optimizer steps between measurements. Each is one reduction of the
            gradients over the ranks, and waits for the device.

    Raises:
        ValueError: ``interval`` < 1; or at the start of training, as SNRCorrection.
        RuntimeError: At the start of training: there are several optimizers, or a
            dataloader without a fixed batch size.

    Example::

        custom_imports = dict(imports=['smd_hooks'])
        optim_wrapper = dict(accumulative_counts=2, optimizer=dict(
            _delete_=True, type='smd_hooks.LionAR', lr=1e-3, weight_decay=0.1))
        custom_hooks = [dict(type='SNRCorrectionHook')]

    Source: Kosson et al., *Analyzing & Reducing the Need for Learning Rate Warmup in GPT
    Training*, §6; the formula is derived.
    """

    def __init__(self, layers: str | Sequence[str] = "*", interval: int = 10) -> None:
        check_interval("SNRCorrectionHook", interval)
        self._layers, self._interval = layers, interval
        self._correction: SNRCorrection | None = None
        self._memory: dict[str, Any] | None = None

    def before_train(self, runner: Runner) -> None:
        """Begin to measure, or go on where the checkpoint's run was."""
        self.after_run(runner)  # a training that failed, and is tried again
        optimizer = single_optimizer(runner, "SNRCorrectionHook")
        micro_batches = accumulation_of(runner)
        memory = self._memory if runner.iter else None  # load_from takes only weights
        size = batch_size_of(runner, "SNRCorrectionHook")
        self._correction = SNRCorrection(
            optimizer,
            unwrapped_model(runner).named_parameters(),
            size * micro_batches * runner.world_size,
            micro_batches,
            self._layers,
            self._interval,
            memory or {"steps": runner.iter // micro_batches, "recent": {}},
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what the factors are averages of."""
        if self._correction is not None:
            checkpoint[CHECKPOINT_KEY] = self._correction.memory()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember what the run that is being resumed had measured."""
        self._memory = checkpoint.get(CHECKPOINT_KEY)

    def after_run(self, runner: Runner) -> None:
        """Correct no more; not before other hooks have had their last look."""
        if self._correction is not None:
            self._correction.detach()
            self._correction = None
