"""From what an optimizer made of stand-ins to the factors that weights are turned by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .sphere import average_rotation_factors, centring_factors


class Asked(NamedTuple):
    """What is asked of each unit in this step, tensors of shape (units,).

    Attributes:
        moves: Whether there is a step at all.
        lr: η, which stand-ins hold the direction times.
        angle: Radians.
        zero_mean: Whether the unit's mean is to be zero, 0 or 1.
        decay: Of the running update norm.
    """

    moves: Tensor
    lr: Tensor
    angle: Tensor
    zero_mean: Tensor
    decay: Tensor


class Kept(NamedTuple):
    """What is known of each unit between steps, float64 of shape (units,).

    Attributes:
        steps: Steps taken; before the first one nothing else counts.
        radius: Norm that it keeps; 0 for a unit that began at zero and is on no sphere.
        update_norm: Running RMS of the direction's norm, not corrected for its start.
    """

    steps: Tensor
    radius: Tensor
    update_norm: Tensor


def stand_in_factors(
    sums: Tensor, elements: Tensor, asked: Asked, kept: Kept
) -> tuple[Tensor, Kept]:
    """Factors of a step w' = a·w + b·q + c, q the stand-in.

    A unit on a sphere had the stand-in 0 before the optimizer's step, so that q = −ηu; it is
    centred at its first step, and turned. A unit on none had itself, and takes q over.

    Args:
        sums: :data:`~smd_hooks.optim.sphere.SUMS` of each unit with q as the direction,
            float64, shape (units, 5).
        elements: Number of elements of each unit, shape (units,).
        asked: What this step is to do.
        kept: What is known from the steps before.

    Returns:
        The factors, float64 of shape (units, 3), and what is known from now on.
    """
    stay, take_over = torch.eye(3, dtype=sums.dtype, device=sums.device)[:2]
    is_first, centres = kept.steps == 0, asked.zero_mean > 0
    per_lr = torch.where(asked.lr > 0, -1 / asked.lr, 0.0)
    ww, wq, qq, w, q = sums.unbind(1)
    wu, uu, u = per_lr * wq, per_lr**2 * qq, per_lr * q

    radius = torch.where(is_first, ww.sqrt().float().double(), kept.radius)
    turning = (radius > 0) & (ww > 0)
    centring = torch.where((is_first & centres)[:, None], centring_factors(sums, elements), stay)
    stretch, _, shift = centring.unbind(1)
    centred = [ww, stretch * wu + shift * u, uu, stretch * w + shift * elements, u]
    factors, update_norm = average_rotation_factors(
        torch.stack(centred, 1),
        elements,
        centres,
        torch.where(turning, radius, 1.0),
        asked.angle,
        kept.update_norm,
        asked.decay,
        1 - asked.decay ** (kept.steps + 1),
    )
    a, b, c = factors.unbind(1)
    factors = torch.stack([a * stretch, b * per_lr, a * shift + c], 1)
    factors = torch.where(asked.moves[:, None], factors, stay)
    factors = torch.where(turning[:, None], factors, take_over)
    new = Kept(kept.steps + 1, radius, update_norm)
    return factors, Kept(*(torch.where(asked.moves, n, k) for n, k in zip(new, kept, strict=True)))
