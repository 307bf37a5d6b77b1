"""Norms, angles and projections of one optimizer step, exact where fp32 is not.

Late ImageNet stages turn by 1e-4 radians a step; ``acos`` of an fp32 cosine returns 0
there. Every sum here is accumulated in float64, and angles come from the part of the
step that lies across the weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEP_STATISTICS = (
    "weight_norm",
    "gradient_norm",
    "gradient_momentum_dot",
    "radial_cosine",
    "update_norm",
    "angular_update",
)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product ⟨a, b⟩ of two equal shapes, any memory format, as a 0-d float64."""
    return torch.dot(a.detach().double().flatten(), b.detach().double().flatten())


def _angle(ww: Tensor, wd: Tensor, dd: Tensor) -> Tensor:
    """Angle between w and w + d from ⟨w,w⟩, ⟨w,d⟩ and ⟨d,d⟩; 0 if either is zero."""
    across = (ww * dd - wd * wd).clamp_min(0).sqrt()
    return torch.atan2(across, ww + wd)


def step_statistics(
    before: Tensor,
    after: Tensor,
    gradient: Tensor,
    buffer_after: Tensor | None,
    momentum: float,
    undamped: float,
    weight_decay: float,
) -> Tensor:
    """Everything the probe measures of one weight at one step.

    The momentum buffer before the step, v₋₁, is not kept: ⟨v₋₁, g⟩ follows from the
    buffer after it, v = αv₋₁ + (1 − d)(g + λw).

    Args:
        before: w_t, any shape.
        after: w_{t+1}, same shape.
        gradient: Loss gradient at w_t, as the optimizer saw it (unscaled, clipped).
        buffer_after: ``momentum_buffer`` after the step, or None if v₋₁ was empty.
        momentum: α.
        undamped: 1 − dampening.
        weight_decay: λ.

    Returns:
        Float64 of shape (6,), on the weight's device, in the order of
        :data:`STEP_STATISTICS`: ‖w_t‖, ‖g‖, ⟨v₋₁, g⟩, cos(w_t, g),
        ‖w_{t+1} − w_t‖, and the angle between w_t and w_{t+1} in radians.
    """
    w = before.detach().double().flatten()
    d = after.detach().double().flatten() - w
    g = gradient.detach().double().flatten()
    ww, wd, dd = torch.dot(w, w), torch.dot(w, d), torch.dot(d, d)
    gg, wg = torch.dot(g, g), torch.dot(w, g)
    if buffer_after is None:
        vg = torch.zeros_like(gg)
    else:
        vg = (dot(buffer_after, g) - undamped * (gg + weight_decay * wg)) / momentum
    radial = wg / (ww * gg).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    return torch.stack((ww.sqrt(), gg.sqrt(), vg, radial, dd.sqrt(), _angle(ww, wd, dd)))


def radial_statistic(weight: Tensor, gradient: Tensor) -> Tensor:
    """z² = ⟨w,g⟩² / Σ(wᵢgᵢ)²: about 1 for an unrelated gradient, 0 for scale invariance.

    Average it over batches; the z² of an averaged gradient is a weaker test.

    Args:
        weight: w, any shape.
        gradient: g at w, same shape, any positive scale.

    Returns:
        0-d float64; NaN where the gradient is zero or not finite.
    """
    products = weight.detach().double() * gradient.detach().double()
    return products.sum() ** 2 / (products * products).sum()
