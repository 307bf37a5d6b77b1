"""Keeps scale-invariant weights in equilibrium across learning-rate changes."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..measure.invariance_watch import InvarianceWatch
from ..measure.momentum import momentum_of
from ..measure.rescaling import EquilibriumRescaling, rules_to_follow
from ..theory import NoPrediction
from .runner_access import accumulation_of, single_optimizer, unwrapped_model

WORTH_A_LOG_LINE = 0.05
"""Change of a weight's size, at once or since the last line, that a line in the log tells of."""
CHECKPOINT_KEY = "smd_equilibrium_rescale"


@HOOKS.register_module()
class EquilibriumRescaleHook(Hook):
    """Multiplies scale-invariant weights by k^(−1/(2+2p)) when the learning rate becomes 1/k.

    That is k^(−1/4) for SGD, with or without momentum, and SGDW, and k^(−1/2) for AdamW, Lion
    and kin. After a drop the old norm is too large for the new rate, and layers turn √k times
    too slowly for several relaxation times. The new equilibrium norm is known, so the hook
    puts the weights on it at once; along a cosine it does so bit by bit, whenever a
    thousandth is due. The function the network computes in train mode does not change.

    With the weights go the optimizer's buffers, because gradients grow as 1/‖w‖, averaged
    weights (EMAHook), and the running statistics of a norm that follows one bias-free weight,
    as after nearly every conv, so that eval mode does not change either; those of other norms
    (behind a concatenation, say) are left to catch up. Weights that are scale-invariant only
    jointly are left as they are.

    * A learning rate that rises is followed, too, but not before three relaxation times of
      training: in a warmup at the start weights have the norm of their initialisation, which
      no rate chose, and to grow with the rate would keep them out of equilibrium. What a fall
      took, a rise always gives back. At a learning rate of 0 nothing is done.
    * A weight is not made so small that its norm's eps would be more than a hundredth of the
      variance, where scale invariance begins to end: it then stays, and a warning says so
      once. This bounds what the end of a cosine can do. Norms that keep no running variance
      (LayerNorm, GroupNorm) are asked at one training step first, and their weights follow
      after it.
    * An optimizer that was added by ``register_rule`` is followed by the weights alone, since
      its buffers are not known; a warning says so.

    It finds the scale-invariant weights itself, in the first 8 training steps and again when a
    module is frozen or changes mode; a change of the learning rate before that is not
    followed. A resumed run takes them from its checkpoint and goes on as if it had never
    stopped; from a checkpoint without them it finds them again, and then catches up.

    Example::

        custom_imports = dict(imports=['smd_hooks'])
        custom_hooks = [dict(type='SMDHook', interval=50),
                        dict(type='EquilibriumRescaleHook')]

    Raises:
        RuntimeError: At the start of training, in one line: there is more than one optimizer,
            or weights that decay under one that no factor keeps in equilibrium (Adam with L2,
            rotational ones, those not known).

    Source: Wan et al., *Spherical Motion Dynamics*, §4; the other rules, buffers and running
    statistics derived.
    """

    def __init__(self) -> None:
        self._watch: InvarianceWatch | None = None
        self._rescaling: EquilibriumRescaling | None = None
        self._memory: dict[str, Any] = {}
        self._warned = False
        self._unsaid = 1.0

    def before_train(self, runner: Runner) -> None:
        """Begin to look for the scale-invariant weights, or take a checkpoint's."""
        optimizer = single_optimizer(runner, "EquilibriumRescaleHook")
        if any(type(hook).__name__ == "RotationalUpdateHook" for hook in runner.hooks):
            raise RuntimeError(
                "EquilibriumRescaleHook: RotationalUpdateHook keeps the norms of its weights "
                "itself, leave one of the two out"
            )
        try:
            rules = rules_to_follow(optimizer)
        except NoPrediction as reason:
            raise RuntimeError(f"EquilibriumRescaleHook: {reason}") from None
        if not any(rules):
            runner.logger.warning("EquilibriumRescaleHook: no weight decay, nothing to rescale")
        if any(momentum_of(optimizer, group) is None for group in optimizer.param_groups):
            runner.logger.warning(
                f"EquilibriumRescaleHook: where {type(optimizer).__name__} keeps its momentum is "
                "not known; weights are rescaled without it, and steps after a drop are off until "
                "it has forgotten"
            )
        steps = runner.iter // accumulation_of(runner)
        self._watch = InvarianceWatch(unwrapped_model(runner), optimizer, steps)
        if runner.iter and self._memory:  # load_from takes another run's weights, not its steps
            names = {name for name, _ in unwrapped_model(runner).named_parameters()}
            weights = {n: norms for n, norms in self._memory["weights"].items() if n in names}
            self._rescaling = self._follow(runner, weights, self._memory)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Follow the learning rate that the coming step will use."""
        if self._watch is None:
            return
        findings = self._watch.poll()
        if findings is not None:
            found = {v.parameter: v.norms for v in findings.verdicts if v.scale_invariant is True}
            memory = {} if self._rescaling is None else self._rescaling.memory()
            if self._rescaling is not None:
                self._rescaling.close()
            self._rescaling = self._follow(runner, found, memory)
        if self._rescaling is not None:
            self._say(runner, self._rescaling.follow(self._watch.step), self._rescaling.held)

    def _follow(self, runner: Runner, weights: Any, memory: Any) -> EquilibriumRescaling:
        averages = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        optimizer = single_optimizer(runner, "EquilibriumRescaleHook")
        return EquilibriumRescaling(optimizer, unwrapped_model(runner), weights, averages, memory)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep which weights are followed."""
        if self._rescaling is not None:
            checkpoint[CHECKPOINT_KEY] = self._rescaling.memory()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember which weights the run that is being resumed followed."""
        self._memory = checkpoint.get(CHECKPOINT_KEY, {})

    def after_train(self, runner: Runner) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.detach()
        if self._rescaling is not None:
            self._rescaling.close()

    def _say(self, runner: Runner, factors: dict[str, float], held: list[str]) -> None:
        if held and not self._warned:
            self._warned = True
            runner.logger.warning(
                f"EquilibriumRescaleHook: {held[0]} is so small that the eps of its norm begins to "
                "matter; it and others like it stay as they are"
            )
        if not factors:
            return
        factor = next(iter(factors.values()))
        self._unsaid *= factor
        if abs(self._unsaid - 1) > WORTH_A_LOG_LINE:
            runner.logger.info(
                f"EquilibriumRescaleHook: iteration {runner.iter}, "
                f"{len(factors)} scale-invariant weights × {self._unsaid:.3f}"
            )
            self._unsaid = 1.0
