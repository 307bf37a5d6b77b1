"""The numbers of an update rule that its equilibrium follows from.

The *decay rate* s is the share of the norm that weight decay takes per step. The
*direction memory* D is how much further a weight diffuses for its steps remembering each
other. The *step exponent* p says how steps shrink as the weight grows. What they are for
each rule stands in the table of :mod:`smd_hooks.theory.equilibrium`.
"""

from __future__ import annotations

import math
from functools import lru_cache, singledispatch

import numpy as np

from .update_rules import (
    AdamRule,
    LionRule,
    NoPrediction,
    RotationalRule,
    SGDRule,
    UpdateRule,
)

L2_ADAM = (
    "not applicable: Adam with L2 divides weight decay by the gradient's size, so its "
    "equilibrium depends on the gradient and differs between layers"
)
TURNED = (
    "not applicable: the optimizer turns the weight by a set angle and keeps its norm, so there "
    "is nothing that relaxes"
)


def decay_rate(rule: UpdateRule) -> float:
    """Share s of the norm that weight decay takes per step, to first order in ηλ.

    Raises:
        NoPrediction: No weight decay, no learning rate, or so much of both that a weight
            without gradients would diverge; or the optimizer keeps the norm.
    """
    if isinstance(rule, RotationalRule):
        raise NoPrediction(TURNED)
    if not rule.weight_decay > 0:
        raise NoPrediction("not applicable: no weight decay, so no equilibrium")
    if not rule.lr > 0:
        raise NoPrediction("not applicable: learning rate is 0")
    decay, limit = rule.lr * rule.weight_decay, 2.0
    if isinstance(rule, SGDRule) and not rule.decoupled:
        a = rule.momentum
        decay *= 1 - rule.dampening
        limit *= (1 + a) / (1 + 2 * a) if rule.nesterov else 1 + a
    if not decay < limit:
        raise NoPrediction("not applicable: lr · weight_decay is so large that decay diverges")
    if isinstance(rule, SGDRule) and not rule.decoupled:
        decay /= 1 - rule.momentum
    return decay


@singledispatch
def direction_memory(rule: UpdateRule) -> float:
    """Direction memory D: the sum over all lags of the steps' autocorrelation.

    For white gradients. Gradients that are aligned with momentum leave SGD's and AdamW's
    angle almost alone; Nesterov's and Lion's they move.

    Raises:
        NoPrediction: Adam with L2, a rotational rule, or a rule of no known family.
    """
    raise NoPrediction(f"no prediction for {type(rule).__name__}: its family is not known")


@direction_memory.register
def _(rule: SGDRule) -> float:
    a = rule.momentum
    heavy_ball = (1 + a) / (1 - a)
    return heavy_ball / (1 + 2 * a - 2 * a**3) if rule.nesterov else heavy_ball


@direction_memory.register
def _(rule: AdamRule) -> float:
    if not rule.decoupled:
        raise NoPrediction(L2_ADAM)
    return (1 + rule.beta1) / (1 - rule.beta1)


@direction_memory.register
def _(rule: LionRule) -> float:
    return _sign_memory(rule.beta1, rule.beta2)


@direction_memory.register
def _(rule: RotationalRule) -> float:
    raise NoPrediction(TURNED)


@lru_cache
def _sign_memory(beta1: float, beta2: float) -> float:
    """Σₖ (2/π)·arcsin ρₖ, the arcsine law for signs of correlated Gaussians.

    ρₖ = ρ₁·β₂^(k−1) is the autocorrelation of sign's argument for white gradients.
    """
    fresh, kept = 1 - beta1, beta1**2 * (1 - beta2) / (1 + beta2)
    first = (fresh * beta1 * (1 - beta2) + beta2 * kept) / (fresh**2 + kept)
    if first < 1e-300:
        return 1.0
    # arcsin term by term down to ρ = .1; beyond, its series sums in closed form
    terms = max(0, math.ceil(math.log(0.1 / first) / math.log(beta2))) if beta2 else 1
    near = np.arcsin(np.minimum(first * beta2 ** np.arange(terms), 1.0)).sum()
    rest = first * beta2**terms
    far = sum(
        coefficient * rest**power / (1 - beta2**power)
        for power, coefficient in ((1, 1), (3, 1 / 6), (5, 3 / 40), (7, 15 / 336))
    )
    return float(1 + 2 * (2 / math.pi) * (near + far))


def step_exponent(rule: UpdateRule) -> int:
    """Exponent p in ‖η·u‖ ∝ ‖w‖^−p: 1 for SGD, 0 where steps are normalized (AdamW, signs).

    Raises:
        NoPrediction: Adam with L2, a rotational rule, or a rule of no known family.
    """
    direction_memory(rule)  # the same rules have both
    return 1 if isinstance(rule, SGDRule) else 0


def decay_factor(rule: UpdateRule) -> float:
    """What a weight without gradients is multiplied by per step, once its buffer has settled.

    The larger root a of x² − (1+α−ηλ)x + α = 0 for coupled heavy ball, of
    x² − (1+α)(1−ηλ)x + α(1−ηλ) = 0 for Nesterov; 1 − ηλ for decoupled decay. It is
    1 − s to first order, and weight decay with a constant η does what η·a^(−2t−1) does
    without weight decay.

    Raises:
        NoPrediction: There is no equilibrium; or momentum makes the decay oscillate,
            ηλ ≥ (1−√α)² for heavy ball.

    Source: Li & Arora, *An Exponential Learning Rate Schedule for Deep Learning*.
    """
    s = decay_rate(rule)
    if not isinstance(rule, SGDRule):
        direction_memory(rule)  # Adam with L2 has no factor
        return 1 - s
    if rule.decoupled:
        return 1 - s
    a, decay = rule.momentum, s * (1 - rule.momentum)
    total, product = (1 + a - decay, a)
    if rule.nesterov:
        total, product = (1 + a) * (1 - decay), a * (1 - decay)
    square = total**2 - 4 * product
    if square < 0 or total <= 0:
        raise NoPrediction(
            "not applicable: lr · weight_decay is so large that momentum makes the norm oscillate"
        )
    return (total + math.sqrt(square)) / 2
