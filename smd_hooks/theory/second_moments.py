"""The second moments that drive norm and angle, as they are measured."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .diffusion import L2_ADAM, TURNED
from .rotation import inverse_bias_factor
from .update_rules import (
    AdamRule,
    LionRule,
    NoPrediction,
    RotationalRule,
    SGDRule,
    UpdateRule,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StepMoments:
    """Window means of what was measured at each sample, each of shape (samples, layers).

    u is the step's direction, w' = (1 − ηλ)·w − η·u with decoupled weight decay; v₋₁ is
    the momentum buffer before the step, decay included. What a family does not use may
    be left out.

    Attributes:
        gradient: ‖g‖²·‖w‖² (SGD family).
        alignment: ⟨v₋₁, g⟩·‖w‖² (SGD family with momentum).
        direction: ‖u‖² (Adam, Lion). For AdamW from its first step on, each sample over
            :func:`early_excess`, so that a mean over early steps holds for later ones.
        radial: ⟨w, u⟩ (Lion; AdamW's is carried along).
        unlike: ⟨w, (D − d)g⟩ of AdamW's preconditioner D, see
            :mod:`smd_hooks.theory.preconditioning`; 0 if left out.
    """

    gradient: Floats | None = None
    alignment: Floats | None = None
    direction: Floats | None = None
    radial: Floats | None = None
    unlike: Floats | None = None

    def __getitem__(self, part: Any) -> StepMoments:
        """Return some samples' and layers' moments, by numpy's indices."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return StepMoments(**{k: v if v is None else v[part] for k, v in given.items()})

    def need(self, name: str) -> Floats:
        """Return a moment that a rule cannot do without.

        Raises:
            ValueError: It was not given.
        """
        values = getattr(self, name)
        if values is None:
            raise ValueError(f"StepMoments: this update rule needs `{name}`")
        return np.asarray(values, float)


@singledispatch
def driving_moment(rule: UpdateRule, moments: StepMoments, lr: ArrayLike | None = None) -> Floats:
    """The second moment whose mean sets the norm, see :func:`equilibrium_norm`.

    Args:
        rule: The update rule.
        moments: What was measured.
        lr: η at each sample, if not the rule's; only sign rules need it.

    Returns:
        (‖g‖² + 2α⟨v₋₁, g⟩)·‖w‖² for SGD and heavy ball, with 2α² for Nesterov; ‖u‖² for
        AdamW; ‖u‖² − 2⟨w,u⟩/η for sign rules. Of the moments' shape.

    Raises:
        NoPrediction: Adam with L2, a rotational rule, or a rule of no known family.

    Source: Wan et al., *Spherical Motion Dynamics*, Theorem 2 (heavy ball); else derived.
    """
    raise NoPrediction(f"no prediction for {type(rule).__name__}: its family is not known")


@driving_moment.register
def _(rule: SGDRule, moments: StepMoments, lr: ArrayLike | None = None) -> Floats:
    gradient = moments.need("gradient")
    if not rule.momentum:
        return gradient
    weight = 2 * rule.momentum ** (2 if rule.nesterov else 1) / (1 - rule.dampening)
    return gradient + weight * moments.need("alignment")


@driving_moment.register
def _(rule: AdamRule, moments: StepMoments, lr: ArrayLike | None = None) -> Floats:
    if not rule.decoupled:
        raise NoPrediction(L2_ADAM)
    return moments.need("direction")


@driving_moment.register
def _(rule: LionRule, moments: StepMoments, lr: ArrayLike | None = None) -> Floats:
    eta = np.asarray(rule.lr if lr is None else lr, float)
    with np.errstate(divide="ignore", invalid="ignore"):  # no step, no moment: NaN
        return moments.need("direction") - 2 * moments.need("radial") / eta


@driving_moment.register
def _(rule: RotationalRule, moments: StepMoments, lr: ArrayLike | None = None) -> Floats:
    raise NoPrediction(TURNED)


def early_excess(rule: UpdateRule, seen: ArrayLike) -> Floats:
    """How much larger ‖u‖² is at a weight's first steps than it will be, by bias correction.

    A bias-corrected mean of few white gradients averages less out: the mean of n has
    (1+βⁿ)/(1−βⁿ) times the square of a mean of infinitely many. AdamW's first u is nearly
    a sign vector, (1+β₁)/(1−β₁) times what it comes to; 19 at β₁ = .9. An inverse bias
    correction makes the first steps smaller instead; that of a rotational rule is known.

    Args:
        rule: The update rule; 1 for those without bias correction.
        seen: n, gradients so far, this step's included; infinity is allowed.

    Source: derived.
    """
    seen = np.asarray(seen, float)
    if isinstance(rule, RotationalRule):
        factor: Floats = inverse_bias_factor(rule.corrected_beta, seen, rule.nesterov)
        return factor**2
    if not isinstance(rule, AdamRule):
        return np.ones_like(seen)
    return bias_excess(rule.beta1**seen)


def bias_excess(left: Any) -> Any:
    """Of a mean that began empty, ``left`` = βⁿ being the share it would still have of that."""
    return (1 + left) / (1 - left)
