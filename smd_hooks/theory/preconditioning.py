"""What AdamW's preconditioner makes of gradients that are orthogonal to the weight.

A scale-invariant weight has ⟨w, g⟩ = 0, but not ⟨w, Dg⟩ = 0, where D = 1/√v divides each
coordinate by the size of its own gradients: the weight grows where gradients are small, and
‖w‖² comes to lie some percent beyond η‖u‖²/2λ, most in small filters. ⟨w, Dg⟩ need not be
measured by itself: it is what ⟨w, u⟩ has beyond what the running mean u inherits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .second_moments import Floats
from .update_rules import AdamRule


def preconditioned_radial(
    rule: AdamRule,
    steps: ArrayLike,
    lr: ArrayLike,
    weight_decay: ArrayLike,
    direction: ArrayLike,
    radial: ArrayLike,
    rescale: ArrayLike | None = None,
    from_first_step: bool = True,
) -> Floats:
    """⟨w, Dg⟩ of AdamW's steps, from what is measured of u, the bias-corrected mean of Dg.

    m = (1 − β₁ⁿ)·u is the mean after n gradients as it would be without the correction. A
    step makes s·⟨w, m⟩ − β₁η⟨u, m⟩ + (1−β₁)·⟨w, Dg⟩ of ⟨w, m⟩, s = β₁(1 − ηλ). Between
    samples k steps apart everything is held at the earlier one's value, which leaves s^k
    of the old one and geometric sums of the rest.

    Args:
        rule: The rule; its lr and weight decay are not used.
        steps: Sampled optimizer steps, increasing, shape (samples,).
        lr: η at each sample, shape (samples,) or (..., samples), as have the following.
        weight_decay: λ.
        direction: ‖u‖² over :func:`~smd_hooks.theory.early_excess`.
        radial: ⟨w, u⟩.
        rescale: Cumulative factor put on the weight from outside.
        from_first_step: Whether the first sample is the weight's first step, its optimizer
            state empty.

    Returns:
        Shape (..., samples), the mean over the steps since the sample before; NaN for the
        first unless it is the first step.

    Source: derived.
    """
    steps, lr, decay, u2, wu = (
        np.asarray(a, float) for a in (steps, lr, weight_decay, direction, radial)
    )
    c = np.ones_like(lr) if rescale is None else np.asarray(rescale, float)
    beta, q = rule.beta1, (1 - lr * decay)[..., :-1]
    n = steps - steps[0] + 1 if from_first_step else np.full(len(steps), np.inf)
    left, k = beta**n, np.diff(steps)
    wm, grown = (1 - left) * wu, c[..., 1:] / c[..., :-1]
    sums = _geometric_sum(beta * q, k)
    # ⟨u, m⟩ is ‖u‖² times 1 + β₁ⁿ⁺ʲ, j steps later
    taken = sums + left[:-1] * beta ** (k - 1) * _geometric_sum(q, k)
    taken = beta * (lr * u2)[..., :-1] * taken
    new = wm[..., 1:] - (beta * q) ** k * grown * wm[..., :-1] + grown * taken
    first = wu[..., :1] if from_first_step else np.full_like(wu[..., :1], np.nan)
    return np.concatenate([first, new / sums / (1 - beta)], axis=-1)


def _geometric_sum(x: Floats, terms: Floats) -> Floats:
    """1 + x + … of so many terms."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x == 1, terms, (1 - x**terms) / (1 - x))


def unlike_parts(
    rule: AdamRule, preconditioned: Floats, radial: Floats, gradient: Floats, direction: Floats
) -> Floats:
    """⟨w, (D − d)g⟩: what of ⟨w, Dg⟩ is due to coordinates being divided by different numbers.

    It is all of ⟨w, Dg⟩ where ⟨w, g⟩ = 0. A weight that is not scale-invariant has a
    d·⟨w, g⟩ besides, and a law that is told this part only must fail for it.

    Args:
        rule: The rule.
        preconditioned: ⟨w, Dg⟩, any shape, as have the others.
        radial: ⟨w, g⟩.
        gradient: ‖g‖², a mean over some steps.
        direction: ‖u‖², likewise, over :func:`~smd_hooks.theory.early_excess`. d is the
            root of what is left of ‖Dg‖² by the running mean, over ‖g‖².

    Source: derived.
    """
    white = (1 - rule.beta1) / (1 + rule.beta1)
    with np.errstate(divide="ignore", invalid="ignore"):
        d = np.sqrt(direction / white / gradient)
    return preconditioned - np.nan_to_num(d * radial)
