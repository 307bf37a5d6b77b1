"""Keeps scale-invariant weights in equilibrium across learning-rate changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ..measure.invariance_watch import InvarianceWatch
from ..measure.probe import RESCALE_KEY
from ..theory import NoPrediction, SGDRule, UpdateRule, rescale_factor
from .runner_access import single_optimizer, unwrapped_model

LR_KEY = "smd_followed_lr"
"""Key in ``optimizer.state[p]``: the learning rate that p's norm belongs to.

In the state, because checkpoints are written between a drop and the step that follows it.
"""
WORTH_A_LOG_LINE = 0.05
EPS_SHARE = 0.01
"""Largest eps, over the variance that a norm sees, that a factor on its input may lead to.

Rescaling by c to a share s changes the norm's output by √((1 + sc²)/(1 + s)), that is by
s(1 − c²)/2; angles are off by as much at first, since gradients shrink with the output. Not
rescaling leaves Δ/Δ* at c², off by 1 − c². So rescaling costs s/2 of what it saves, whatever
the factor: half a percent here. What bounds s is not this cost but the verdict: z², which is
largest at the last conv before a classifier, grows as s², and here stays below half of its limit.

A judgement, and a corrected one: the share was a thousandth at first, at which rescaling costs
next to nothing, and layers were left far from their equilibrium for it.
"""


@HOOKS.register_module()
class EquilibriumRescaleHook(Hook):
    """Multiplies scale-invariant weights by k^(−1/4) when the learning rate becomes 1/k.

    After a drop the old norm is too large for the new rate, and layers turn √k times
    too slowly for several relaxation times. The new equilibrium norm is known, so the
    hook puts the weights on it at once. The function the network computes in train
    mode does not change. Momentum buffers are multiplied by the inverse factor, because
    gradients grow as 1/‖w‖. The running statistics of a norm that follows one bias-free
    weight, as after nearly every conv, move with it, so that eval mode does not change
    either; those of other norms (behind a concatenation, say) are left to catch up.

    A weight is not made so small that its norm's eps would be more than a hundredth of the
    variance, where scale invariance begins to end: it then stays, and a warning says so
    once.

    It needs ``torch.optim.SGD`` and finds the scale-invariant weights itself, in the
    first 8 training steps and again when a module is frozen or changes mode; a change of
    the learning rate before that is not followed.
    After a resume it needs them again, and then catches up with what it missed.

    Example::

        custom_imports = dict(imports=['smd_hooks'])
        custom_hooks = [dict(type='SMDHook', interval=50),
                        dict(type='EquilibriumRescaleHook')]

    Raises:
        RuntimeError: At the start of training, if the optimizer is not an SGD.

    Source: Wan et al., *Spherical Motion Dynamics*, §4; momentum and running statistics
    derived.
    """

    def __init__(self) -> None:
        self._watch: InvarianceWatch | None = None
        self._weights: dict[str, tuple[str, ...]] = {}
        self._rates: list[float] = []
        self._warned = False

    def before_train(self, runner: Runner) -> None:
        """Begin to look for the scale-invariant weights."""
        optimizer = single_optimizer(runner, "EquilibriumRescaleHook")
        try:
            rules = [UpdateRule.from_optimizer(optimizer, g) for g in optimizer.param_groups]
        except NoPrediction as reason:
            raise RuntimeError(f"EquilibriumRescaleHook: {reason}") from None
        if not all(isinstance(rule, SGDRule) for rule in rules):
            raise RuntimeError(
                "EquilibriumRescaleHook: rescales under torch.optim.SGD only, this run has "
                f"{type(optimizer).__name__}"
            )
        self._watch = InvarianceWatch(unwrapped_model(runner), optimizer)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Follow the learning rate that the coming step will use."""
        findings = self._watch.poll() if self._watch is not None else None
        if findings is not None:
            self._weights = {
                v.parameter: v.norms for v in findings.verdicts if v.scale_invariant is True
            }
            self._rates = []
        if not self._weights:
            return
        groups = single_optimizer(runner, "EquilibriumRescaleHook").param_groups
        rates = [float(group["lr"]) for group in groups]
        if rates != self._rates:  # most iterations end here, without a look at any weight
            self._rates = rates
            self._follow(runner)

    def after_train(self, runner: Runner) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.detach()

    def _warn_once(self, runner: Runner, name: str) -> None:
        if not self._warned:
            self._warned = True
            runner.logger.warning(
                f"EquilibriumRescaleHook: {name} is so small that the eps of its norm begins to "
                "matter; it and others like it stay as they are"
            )

    @torch.no_grad()
    def _follow(self, runner: Runner) -> None:
        optimizer = single_optimizer(runner, "EquilibriumRescaleHook")
        model = unwrapped_model(runner)
        parameters = dict(model.named_parameters())
        names = {id(parameters[name]): name for name in self._weights}
        feeds = Counter(norm for norms in self._weights.values() for norm in norms)
        moved = []
        for group in optimizer.param_groups:
            lr = float(group["lr"])
            for parameter in group["params"]:
                name = names.get(id(parameter))
                if name is None or lr <= 0 or group["weight_decay"] <= 0:
                    continue
                state = optimizer.state[parameter]
                k = state.get(LR_KEY, lr) / lr
                norms = [model.get_submodule(norm) for norm in self._weights[name]]
                factor = rescale_factor(UpdateRule.from_optimizer(optimizer, group), k)
                if factor < 1 and any(eps_would_matter(norm, factor) for norm in norms):
                    self._warn_once(runner, name)
                    continue
                state[LR_KEY] = lr
                if k != 1:
                    rescale_weight(parameter, state, factor)
                    owner = model.get_submodule(name.rpartition(".")[0])
                    if len(norms) == 1 and feeds[self._weights[name][0]] == 1:
                        rescale_statistics(owner, norms[0], factor)
                    moved.append((name, factor))
        if moved and abs(moved[0][1] - 1) > WORTH_A_LOG_LINE:
            runner.logger.info(
                f"EquilibriumRescaleHook: iteration {runner.iter}, "
                f"{len(moved)} scale-invariant weights × {moved[0][1]:.3f}"
            )


def rescale_weight(weight: Tensor, state: dict[str, Any], factor: float) -> None:
    """Multiply a weight in place, and its SGD momentum buffer by the inverse.

    The product of all factors is kept in the optimizer's state, where the probe (and,
    through checkpoints, a resumed run) finds it.
    """
    weight.mul_(factor)
    if torch.is_tensor(state.get("momentum_buffer")):
        state["momentum_buffer"].div_(factor)
    state[RESCALE_KEY] = float(state.get(RESCALE_KEY, 1.0)) * factor


def rescale_statistics(owner: nn.Module, norm: nn.Module, factor: float) -> None:
    """Let the running mean and variance behind a bias-free weight follow its factor.

    With a bias the mean is not proportional to the weight; it is left to catch up.

    Args:
        owner: The module that holds the weight (and perhaps a bias).
        norm: The norm module that follows; without running statistics nothing is done.
        factor: What the weight was multiplied by.
    """
    if getattr(owner, "bias", None) is not None:
        return
    buffers = dict(norm.named_buffers(recurse=False))
    if "running_mean" in buffers:
        buffers["running_mean"].mul_(factor)
        buffers["running_var"].mul_(factor**2)


def eps_would_matter(norm: nn.Module, factor: float) -> bool:
    """Whether a factor on the weight before it would bring a norm's variance down to its eps."""
    variance = dict(norm.named_buffers(recurse=False)).get("running_var")
    if variance is None:
        return False
    return bool(variance.median() * factor**2 * EPS_SHARE < getattr(norm, "eps", 0.0))
