"""How each update rule carries the second moments of weight and step from step to step.

A step is w' = q·w − η·u, q = 1 − ηλ with decoupled weight decay and 1 where decay is part
of u. The norm and the angle need two numbers of it, ⟨w,u⟩ and ‖u‖²; what differs between
rules is how much of these was measured and how much the rule's memory determines:

* SGD family: ⟨w,v⟩ and ‖v‖² of the momentum buffer are carried along, driven by the
  measured ‖g‖²‖w‖² and ⟨v₋₁,g⟩‖w‖².
* AdamW: ‖u‖² is measured (the preconditioner is out of theory's reach), but for what bias
  correction adds to it at first, which is known; ⟨w,u⟩ is carried along as that of a
  running mean, driven by what the preconditioner makes of gradients that are orthogonal to
  the weight themselves.
* sign rules: both are measured, since signs of aligned gradients follow no recursion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .diffusion import L2_ADAM
from .second_moments import Floats, StepMoments, bias_excess
from .update_rules import AdamRule, LionRule, NoPrediction, SGDRule, UpdateRule


class Memory(Protocol):
    """What a rule remembers of earlier steps, as second moments; all of shape (layers,)."""

    def direction(self, r2: Floats, decay: Floats, moments: StepMoments) -> tuple[Floats, Floats]:
        """Take in a step's gradient at ‖w‖² = r2 and λ = decay; return ⟨w,u⟩ and ‖u‖²."""

    def move(self, q: Floats, eta: Floats) -> None:
        """Follow the weight through its step w' = q·w − η·u."""

    def rescale(self, c2: Floats) -> None:
        """Follow a weight that was multiplied by c from outside, its buffer by 1/c."""


@dataclass
class MomentumMemory:
    """The buffer v of the SGD family, in units where dampening is part of η.

    Attributes:
        rule: The rule.
        v2: E‖v‖².
        wv: E⟨w,v⟩.
        empty: Whether no gradient has entered the buffer yet.
    """

    rule: SGDRule
    v2: Floats
    wv: Floats
    empty: bool = True

    @classmethod
    def settled(
        cls,
        rule: SGDRule,
        r2: Floats,
        decay: Floats,
        moments: StepMoments,
        q: Floats,
        eta: Floats,
    ) -> MomentumMemory:
        """Return the quasi-stationary buffer for these moments."""
        a = rule.momentum
        memory = cls(rule, np.zeros_like(r2), np.zeros_like(r2), empty=False)
        gradient, alignment = memory._undamped(moments)
        memory.v2 = np.maximum(gradient + 2 * a * alignment, 0.0) / r2 / (1 - a**2)
        memory._vu = memory.v2
        if rule.nesterov:
            memory._vu = (gradient + a * alignment) / r2 + a * memory.v2
        memory.wv = (q * memory._coupled(decay) * r2 - eta * memory._vu) / (1 - q * a)
        return memory

    def __post_init__(self) -> None:
        self._vu = self.v2  # E⟨v,u⟩

    def _coupled(self, decay: Floats) -> Floats:
        """The λ that enters the buffer."""
        return np.zeros_like(decay) if self.rule.decoupled else decay

    def _undamped(self, moments: StepMoments) -> tuple[Floats, Floats]:
        gradient = moments.need("gradient")
        if not self.rule.momentum:
            return gradient, np.zeros_like(gradient)
        return gradient, moments.need("alignment") / (1 - self.rule.dampening)

    def direction(self, r2: Floats, decay: Floats, moments: StepMoments) -> tuple[Floats, Floats]:
        """See :class:`Memory`. G = g + λw is what enters the buffer."""
        a, decay = self.rule.momentum, self._coupled(decay)
        gradient, alignment = self._undamped(moments)
        g2 = gradient / r2 + decay**2 * r2
        vg = alignment / r2 + decay * self.wv
        self.v2 = np.maximum(a**2 * self.v2 + g2 + 2 * a * vg, 0.0)
        self.wv = a * self.wv + decay * r2
        if self.empty:  # torch does not dampen the first step
            self.empty = False
            self.v2 = self.v2 / (1 - self.rule.dampening) ** 2
            self.wv = self.wv / (1 - self.rule.dampening)
        if not self.rule.nesterov:
            self._vu = self.v2
            return self.wv, self.v2
        gv = a * vg + g2
        self._vu = gv + a * self.v2
        return decay * r2 + a * self.wv, g2 + 2 * a * gv + a**2 * self.v2

    def move(self, q: Floats, eta: Floats) -> None:
        """See :class:`Memory`."""
        self.wv = q * self.wv - eta * self._vu

    def rescale(self, c2: Floats) -> None:
        """See :class:`Memory`. ⟨w,v⟩ stays."""
        self.v2 = self.v2 / c2


@dataclass
class RunningMeanMemory:
    """AdamW's bias-corrected first moment.

    Attributes:
        rule: The rule.
        wu: E⟨w,u⟩ of the last step's u.
        u2: E‖u‖², what was measured times this step's :func:`early_excess`.
        seen: Gradients so far; infinity for a settled one.
    """

    rule: AdamRule
    wu: Floats
    u2: Floats
    seen: float = 0.0

    @classmethod
    def settled(
        cls, rule: AdamRule, moments: StepMoments, q: Floats, eta: Floats
    ) -> RunningMeanMemory:
        """Return the quasi-stationary mean for these moments."""
        u2 = moments.need("direction")
        fresh = (1 - rule.beta1) * _unlike(moments)
        wu = (q * fresh - eta * u2) / (1 - q * rule.beta1)
        return cls(rule, wu, u2, np.inf)

    def direction(self, r2: Floats, decay: Floats, moments: StepMoments) -> tuple[Floats, Floats]:
        """See :class:`Memory`."""
        # bias correction gives the newest gradient more weight at first
        beta, before = self.rule.beta1, self.rule.beta1**self.seen
        kept = (1 - before) / (1 - beta * before) * beta
        self.seen += 1
        self.u2 = moments.need("direction") * bias_excess(beta * before)
        self.wu = kept * self.wu + (1 - kept) * _unlike(moments)
        return self.wu, self.u2

    def move(self, q: Floats, eta: Floats) -> None:
        """See :class:`Memory`."""
        self.wu = q * self.wu - eta * self.u2

    def rescale(self, c2: Floats) -> None:
        """See :class:`Memory`. u stays, as it does not know the gradient's size."""
        self.wu = self.wu * np.sqrt(c2)


def _unlike(moments: StepMoments) -> Floats:
    given = moments.unlike
    return np.zeros(()) if given is None else np.nan_to_num(np.asarray(given, float))


class SignMemory:
    """None: signs of gradients follow no recursion of second moments, so all is measured."""

    def direction(self, r2: Floats, decay: Floats, moments: StepMoments) -> tuple[Floats, Floats]:
        """See :class:`Memory`."""
        return moments.need("radial"), moments.need("direction")

    def move(self, q: Floats, eta: Floats) -> None:
        """See :class:`Memory`."""

    def rescale(self, c2: Floats) -> None:
        """See :class:`Memory`."""


def kept_and_step(rule: UpdateRule, lr: Floats, weight_decay: Floats) -> tuple[Floats, Floats]:
    """What multiplies w and what multiplies u in a step, q and η without dampening's share."""
    if not isinstance(rule, SGDRule):
        return 1 - lr * weight_decay, lr
    q = 1 - lr * weight_decay if rule.decoupled else np.ones_like(lr)
    return q, lr * (1 - rule.dampening)


def first_memory(
    rule: UpdateRule,
    r2: Floats,
    decay: Floats,
    moments: StepMoments,
    q: Floats,
    eta: Floats,
    empty: bool,
) -> Memory:
    """Return what a rule remembers before its first sampled step.

    Args:
        rule: The rule.
        r2: ‖w‖², shape (layers,), as are the following.
        decay: λ.
        moments: What was measured at this step.
        q: What the weight is multiplied by in the step.
        eta: What u is multiplied by.
        empty: Whether this is the weight's first step of all; if not, the memory is in its
            quasi-stationary state.

    Raises:
        NoPrediction: Adam with L2, or a rule of no known family.
    """
    if isinstance(rule, SGDRule):
        if empty:
            return MomentumMemory(rule, np.zeros_like(r2), np.zeros_like(r2))
        return MomentumMemory.settled(rule, r2, decay, moments, q, eta)
    if isinstance(rule, AdamRule):
        if not rule.decoupled:
            raise NoPrediction(L2_ADAM)
        if empty:
            return RunningMeanMemory(rule, np.zeros_like(r2), np.zeros_like(r2))
        return RunningMeanMemory.settled(rule, moments, q, eta)
    if isinstance(rule, LionRule):
        return SignMemory()
    raise NoPrediction(f"no prediction for {type(rule).__name__}: its family is not known")
