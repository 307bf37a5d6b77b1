"""Multiplies scale-invariant weights as the learning rate moves, to keep them in equilibrium.

When η becomes η/k the equilibrium norm is multiplied by c = k^(−1/(2+2p)), and a weight that
is multiplied by c stays in equilibrium. What goes with it, and as which power of c, stands in
:mod:`smd_hooks.measure.rescaled_tensors`.

Source: Wan et al., *Spherical Motion Dynamics*, §4 (weights under SGD); else derived.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..theory import NoPrediction, UpdateRule, relaxation_time, rescale_factor
from .momentum import Momentum, momentum_of
from .norm_variance import VarianceReader, smallest_factor
from .probe import RESCALE_KEY
from .rescaled_tensors import Followed, find_followed, rescale

LR_KEY = "smd_followed_lr"
"""Key in ``optimizer.state[p]``: the learning rate that p's norm belongs to.

In the state, because checkpoints are written between a drop and the step that follows it.
"""
SETTLED = 3.0
"""Relaxation times of training before weights grow with the learning rate.

In a warmup at the start of training weights have the norm of their initialisation, which no
learning rate chose. To grow with the rate would keep them as far from equilibrium as they
began. Three relaxation times leave 5 % of the distance.
"""
FINEST = 1e-3
"""Smallest change of a weight's size that is worth a pass over it; smaller ones add up first.

Angles are off by at most twice as much. Weights of low precision wait for two of their units
of rounding, below which a product would fall back to where it was.
"""
EPS_SHARE = 0.01
"""Largest eps, over the variance that a norm sees, that a factor on its input may lead to.

Rescaling by c to a share s changes the norm's output by √((1 + sc²)/(1 + s)), that is by
s(1 − c²)/2; angles are off by as much at first, since gradients shrink with the output. Not
rescaling leaves Δ/Δ* at c^(1+p), off by 1 − c or more. So rescaling costs at most s of what
it saves, whatever the factor: one percent here, and half of that under SGD. What bounds s is
not this cost but the verdict: z², which is largest at the last conv before a classifier,
grows as s², and here stays below half of its limit.

A judgement, and a corrected one: the share was a thousandth at first, at which rescaling costs
next to nothing, and layers were left far from their equilibrium for it.
"""
LOOK_AGAIN = 0.95
"""How far a weight must fall until variances are read from the device again."""


class EquilibriumRescaling:
    """Follows an optimizer's learning rates with the norms of its scale-invariant weights.

    A weight's factors, and the rate it has followed, are kept in the optimizer's state,
    where the probe and checkpoints find them. Reads nothing back from the device but the
    norms' variances, each time that a weight is to be some percent smaller than at the
    last reading (and a learning rate, if it is a tensor there).

    Args:
        optimizer: The optimizer; :func:`rules_to_follow` says whether it can be followed.
        model: The model, unwrapped.
        weights: Names of the scale-invariant weights, and of each one's norms.
        copies: Models of the same form whose weights are averages of this one's (EMA).
        memory: What :meth:`memory` returned before a resume; empty for a new run.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        weights: Mapping[str, Sequence[str]],
        copies: Sequence[nn.Module] = (),
        memory: Mapping[str, Any] | None = None,
    ) -> None:
        memory = memory or {}
        self.optimizer = optimizer
        self.weights = {name: tuple(norms) for name, norms in weights.items()}
        self.held: list[str] = []
        """Weights that did not follow the last fall, because a norm's eps would matter."""
        self._rules = rules_to_follow(optimizer)
        # 1/τ goes as ηλ
        self._rate_per_product = [_relaxation_rate(rule) for rule in self._rules]
        self._ages: list[float] = list(memory.get("ages", [0.0] * len(self._rules)))
        self._aged_at: int = memory.get("step", 0)
        self._rates: list[float] = list(memory.get("rates", []))
        self._begun = False
        self._followed = find_followed(optimizer, model, self.weights, copies)
        for weight in self._followed:
            looks = memory.get("looks", {}).get(weight.name)
            if looks is not None:
                weight.smallest, weight.looked_at = looks
        self._variances = VarianceReader(norm for w in self._followed for norm in w.norms)

    def memory(self) -> dict[str, Any]:
        """Return what a checkpoint must keep beside the optimizer's state."""
        return {
            "weights": {name: list(norms) for name, norms in self.weights.items()},
            "looks": {w.name: [w.smallest, w.looked_at] for w in self._followed},
            "ages": list(self._ages),
            "rates": list(self._rates),
            "step": self._aged_at,
        }

    def close(self) -> None:
        """Leave nothing behind on the model."""
        self._variances.close()

    @torch.no_grad()
    def follow(self, step: int) -> dict[str, float]:
        """Put the weights on the equilibrium of the rates that the coming step will use.

        Args:
            step: Optimizer steps taken so far.

        Returns:
            By name, the factor on each weight that was rescaled.
        """
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        if self._begun and rates == self._rates and not self._variances.asked:
            return {}  # most steps of most schedules end here
        self._grow_older(step)
        self._begun, self._rates = True, rates
        factors = {w: c for w in self._followed if (c := self._factor_on(w)) is not None}
        self.held = self._hold_back(factors)
        tensors, powers, scalars = [], [], []
        for weight, factor in factors.items():
            state = self.optimizer.state[weight.parameter]
            for tensor, power in [(weight.parameter, 1), *weight.along, *self._buffers(weight)]:
                tensors.append(tensor)
                powers.append(power)
                scalars.append(factor)
            state[LR_KEY] = rates[weight.group]
            state[RESCALE_KEY] = self._product(weight) * factor
        rescale(tensors, powers, scalars)
        return {weight.name: factor for weight, factor in factors.items()}

    def _grow_older(self, step: int) -> None:
        """Count relaxation times passed since the rates last changed."""
        passed, self._aged_at = step - self._aged_at, step
        for i, rate in enumerate(self._rates):
            decay = float(self.optimizer.param_groups[i].get("weight_decay", 0.0))
            self._ages[i] += passed * rate * decay * self._rate_per_product[i]

    def _product(self, weight: Followed) -> float:
        return float(self.optimizer.state[weight.parameter].get(RESCALE_KEY, 1.0))

    def _momentum(self, weight: Followed) -> Momentum | None:
        return momentum_of(self.optimizer, self.optimizer.param_groups[weight.group])

    def _buffers(self, weight: Followed) -> list[tuple[Tensor, int]]:
        """What the optimizer keeps of the weight's gradients, with its powers."""
        state, momentum = self.optimizer.state[weight.parameter], self._momentum(weight)
        if momentum is None:
            return []
        kept = [(state.get(momentum.key), -1), (state.get(momentum.square_key), -2)]
        return [(tensor, power) for tensor, power in kept if torch.is_tensor(tensor)]

    def _factor_on(self, weight: Followed) -> float | None:
        """What the weight is to be multiplied by; None for nothing, as yet."""
        lr, rule = self._rates[weight.group], self._rules[weight.group]
        decay = self.optimizer.param_groups[weight.group]["weight_decay"]
        if rule is None or lr <= 0 or decay <= 0:
            return None
        old = self.optimizer.state.get(weight.parameter, {}).get(LR_KEY)
        if old is None:
            self._begin(weight, lr)
            return None
        if lr >= old:  # the next fall is another one, at other variances
            weight.looked_at = math.inf
        if old == lr:
            return None
        factor = rescale_factor(rule, old / lr)
        finest = max(FINEST, 2 * torch.finfo(weight.parameter.dtype).eps)
        if factor > 1 and self._ages[weight.group] < SETTLED:
            taken = 1 / self._product(weight)  # by falls: that is given back, and no more
            if taken < 1 + finest:
                self.optimizer.state[weight.parameter][LR_KEY] = lr
                return None
            factor = min(factor, taken)
        return factor if abs(factor - 1) >= finest else None

    def _begin(self, weight: Followed, lr: float) -> None:
        """Take the weight's norm for that of this learning rate."""
        momentum, state = self._momentum(weight), self.optimizer.state[weight.parameter]
        stepped = momentum is None or not momentum.keep or momentum.key in state
        if stepped:
            state[LR_KEY] = lr
        else:  # a key of ours would pass for the optimizer's own state
            self._begun = False

    def _hold_back(self, factors: dict[Followed, float]) -> list[str]:
        """Take out of the factors those that would make a weight too small for its norm's eps.

        Also, for one step, those of norms that must be asked first.
        """
        falls = {w: self._product(w) * c for w, c in factors.items() if c < 1 and w.norms}
        due = [w for w, product in falls.items() if product < LOOK_AGAIN * w.looked_at]
        if due:
            answered = self._variances.asked
            variances = self._variances.read()
            if not answered:
                self._variances.ask()
            for weight in due:
                if self._variances.asked and self._variances.silent & set(weight.norms):
                    del factors[weight], falls[weight]
                    continue
                known = [(norm, variances[norm]) for norm in weight.norms if norm in variances]
                least = [smallest_factor(*each, EPS_SHARE) for each in known]
                weight.smallest = self._product(weight) * max(least, default=0.0)
                weight.looked_at = falls[weight]
        else:
            self._variances.close()
        held = [weight for weight, product in falls.items() if product < weight.smallest]
        for weight in held:
            del factors[weight]
        return [weight.name for weight in held]


def rules_to_follow(optimizer: Optimizer) -> list[UpdateRule | None]:
    """Return each parameter group's update rule, None where nothing decays.

    Raises:
        NoPrediction: A group has weight decay, and no factor is known that keeps its
            weights in equilibrium.
    """
    rules: list[UpdateRule | None] = []
    for group in optimizer.param_groups:
        try:
            rule = UpdateRule.from_optimizer(optimizer, group)
            rescale_factor(rule, 1.0)
        except NoPrediction:
            if float(group.get("weight_decay", 0.0)) > 0:
                raise
            rules.append(None)
        else:
            rules.append(rule)
    return rules


def _relaxation_rate(rule: UpdateRule | None) -> float:
    """1/(τηλ) in the limit of small ηλ."""
    return 0.0 if rule is None else 1e6 / relaxation_time(rule.at(1e-3, 1e-3))
