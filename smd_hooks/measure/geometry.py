"""Norms, angles and projections of one optimizer step, exact where fp32 is not.

Late ImageNet stages turn by 1e-4 radians a step; ``acos`` of an fp32 cosine returns 0
there. So a step is reduced to a few inner products, summed in float64, and the angle is
taken from the part of the step that lies across the weight. The inner products of
several weights add up to those of their concatenation, which is how filters make a
tensor and tensors a joint group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

STEP_SUMS = ("ww", "wd", "dd", "gg", "wg", "bg")
"""Inner products that a step is reduced to: w the weight before it, d the update, g the
gradient, b the momentum buffer after it."""

STEP_STATISTICS = (
    "weight_norm",
    "gradient_norm",
    "gradient_momentum_dot",
    "radial_cosine",
    "update_norm",
    "radial_update",
    "angular_update",
)
"""What is told of each step: ‖w_t‖, ‖g‖, ⟨v₋₁, g⟩, cos(w_t, g), the length of the update
w_{t+1} − w_t, its component along w_t (negative: inwards), and the angle between w_t and
w_{t+1} in radians."""


def step_sums(before: Tensor, after: Tensor, gradient: Tensor, buffer: Tensor | None) -> Tensor:
    """Reduce one step to :data:`STEP_SUMS`, in float64.

    Written so that it can be compiled into one pass over its arguments; called as it is,
    it is the reference.

    Args:
        before: w_t, shape (elements,) or (rows, elements).
        after: w_{t+1}, same shape.
        gradient: Loss gradient at w_t, same shape.
        buffer: Momentum buffer after the step, same shape; None where there is none.

    Returns:
        Float64 of shape (6,) or (rows, 6).
    """
    w, g = before.double(), gradient.double()
    d = after.double() - w
    products = [w * w, w * d, d * d, g * g, w * g]
    sums = [product.sum(-1) for product in products]
    sums.append(torch.zeros_like(sums[0]) if buffer is None else (buffer.double() * g).sum(-1))
    return torch.stack(sums, -1)


def as_vectors(tensors: Sequence[Tensor], per_row: bool = False) -> list[Tensor]:
    """View equally shaped tensors as vectors, or as rows of them, element by element alike.

    No copy is made where all of them lie in memory in one and the same order, channels_last
    included.

    Args:
        tensors: Tensors of one shape.
        per_row: Keep the first dimension apart.

    Returns:
        One tensor for each, of shape (elements,) or (rows, elements).
    """
    shape = (len(tensors[0]), -1) if per_row else (-1,)
    if not all(t.is_contiguous() for t in tensors):
        strides = tensors[0].stride()
        order = sorted(range(tensors[0].ndim), key=lambda i: -strides[i])
        permuted = [t.permute(order) for t in tensors]
        first_stays = not per_row or order[0] == 0
        if first_stays and all(t.is_contiguous() for t in permuted):
            tensors = permuted
    return [t.reshape(shape) for t in tensors]


def statistics(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Turn sums into :data:`STEP_STATISTICS`.

    Args:
        sums: Shape (samples, 6), in the order of :data:`STEP_SUMS`, the last already
            ⟨v₋₁, g⟩, with the buffer before the step.

    Returns:
        One column of shape (samples,) per name. The angle is 0 where the weight or the
        update is zero; else it is exact to 1e-4 down to 1e-6 radians, unless the step
        shortens or stretches the weight by tens of percent at so small an angle.
    """
    ww, wd, dd, gg, wg, vg = sums.T
    norm = np.sqrt(ww)
    across = np.sqrt(np.maximum(ww * dd - wd * wd, 0.0))
    tiny = np.finfo(float).tiny
    return {
        "weight_norm": norm,
        "gradient_norm": np.sqrt(gg),
        "gradient_momentum_dot": vg,
        "radial_cosine": wg / np.maximum(np.sqrt(ww * gg), tiny),
        "update_norm": np.sqrt(dd),
        "radial_update": wd / np.maximum(norm, tiny),
        "angular_update": np.arctan2(across, ww + wd),
    }


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
