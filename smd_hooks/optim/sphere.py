"""The geometry of a step on a sphere: literally on rows, and as three factors per unit.

A *unit* is what keeps its norm: a neuron's row of a weight, or a whole tensor. Every step
of this package has the form w' = a·w + b·u + c with three numbers per unit, u the
optimizer's direction. They follow from five sums over the unit, so that a step is two
passes over memory however many weights there are: one that moves the momentum and sums,
one that moves the weights. The literal forms are what the factors are held equal to.
"""

from __future__ import annotations

import torch
from torch import Tensor

SUMS = ("ww", "wu", "uu", "w", "u")
"""Sums over a unit that its step follows from: w the weight, u the direction."""

FACTORS = ("weight", "direction", "constant")
"""The numbers a, b and c of a unit's step."""

TINY = 1e-8
"""Added to an average update norm that is divided by."""
PARALLEL = 1e-12
"""Share of ‖u‖² that can be rounding: a direction with no more across its weight is parallel."""
CENTRED = 1e-8
"""Share of ‖w‖² that rounding leaves in a mean: one no larger is not taken off again."""


# --------------------------------------------------------------------------- literally


def tangent(rows: Tensor, direction: Tensor, zero_mean: bool = False) -> Tensor:
    """Return each row of the direction without its part along the same row of the weight.

    Args:
        rows: Weights, shape (units, elements).
        direction: Same shape. Where only rounding is left of a row, it becomes zero.
        zero_mean: Take each row's mean off, too.
    """
    size = direction.norm(dim=1, keepdim=True)
    if zero_mean:
        direction = direction - direction.mean(1, keepdim=True)
    along = (rows * direction).sum(1, keepdim=True) / (rows * rows).sum(1, keepdim=True)
    left = direction - along * rows
    moves = left.norm(dim=1, keepdim=True) ** 2 > PARALLEL * size**2
    return torch.where(moves, left, 0.0)


def turned(rows: Tensor, direction: Tensor, angle: Tensor | float, radius: Tensor) -> Tensor:
    """Turn each row against a tangent direction, along the great circle.

    Args:
        rows: Weights, shape (units, elements).
        direction: Tangent at ``rows``, same shape; where it is zero, nothing turns.
        angle: Radians.
        radius: Norm of each row afterwards, shape (units, 1).
    """
    size = direction.norm(dim=1, keepdim=True)
    angle = torch.where(size > 0, torch.as_tensor(angle, dtype=rows.dtype, device=rows.device), 0.0)
    heading = direction / torch.where(size > 0, size, 1.0)
    there = rows / rows.norm(dim=1, keepdim=True)
    return radius * (torch.cos(angle) * there - torch.sin(angle) * heading)


# ------------------------------------------------------------------- as factors per unit


def great_circle_factors(sums: Tensor, radius: Tensor, angle: Tensor) -> Tensor:
    """Factors of a step along the great circle, by the angle exactly.

    Args:
        sums: :data:`SUMS` of each unit, float64, shape (units, 5).
        radius: Norm that each unit keeps, shape (units,), positive.
        angle: Radians, shape (units,).

    Returns:
        Shape (units, 3). Units whose direction is zero or parallel to them stay.
    """
    ww, wu, uu = sums[:, 0], sums[:, 1], sums[:, 2]
    across = uu - wu**2 / ww
    moves = across > PARALLEL * uu
    heading = torch.where(moves, radius * torch.sin(angle) / across.sqrt(), 0.0)
    stays = radius / ww.sqrt() * torch.where(moves, torch.cos(angle), 1.0)
    return torch.stack([stays + heading * wu / ww, -heading, torch.zeros_like(ww)], 1)


def average_rotation_factors(
    sums: Tensor,
    elements: Tensor,
    zero_mean: Tensor,
    radius: Tensor,
    angle: Tensor,
    update_norm: Tensor,
    decay: Tensor,
    seen: Tensor,
) -> tuple[Tensor, Tensor]:
    """Factors of a step whose angle is right on average, with its running update norm.

    The direction (without its mean, if so wished, and its radial part) is measured against
    the root mean square of its norm over past steps, so that single steps may turn by more
    or less. The weight is then put back on its sphere.

    Args:
        sums: :data:`SUMS` of each unit, float64, shape (units, 5).
        elements: Number of elements of each unit; all of these have shape (units,).
        zero_mean: Whether each unit's mean stays zero.
        radius: Norm that each unit keeps, positive.
        angle: Radians, as a root mean square over steps.
        update_norm: Running root mean square of ‖u‖, from 0, not corrected for its start.
        decay: Of that running mean.
        seen: Share of the running mean that steps so far have made, 1 − decayᵗ.

    Returns:
        The factors, shape (units, 3), and the new ``update_norm``.

    Source: Kosson et al., *Rotational Equilibrium*, §5 and Algorithm 1.
    """
    ww, wu, uu, w, u = sums.unbind(1)
    mean = torch.where(zero_mean, u / elements, 0.0)
    wu = wu - mean * w
    along = wu / ww
    square = uu - mean * u - along * wu  # of the tangent direction
    moves = square > PARALLEL * uu
    square = torch.where(moves, square, 0.0)
    average = decay * update_norm**2 + (1 - decay) * square
    typical = (average / seen).sqrt()
    pull = torch.where(moves, angle * radius / (typical + TINY), 0.0)
    shrink = radius / (ww + pull**2 * square).sqrt()
    factors = torch.stack([1 + pull * along, -pull, pull * mean], 1) * shrink[:, None]
    return factors, average.sqrt()


def centring_factors(sums: Tensor, elements: Tensor) -> Tensor:
    """Factors that take a unit's mean off and stretch what is left to the unit's norm.

    Units without anything else (all elements alike, or zero) stay as they are, and so, to
    the bit, do those whose mean is only rounding.

    Args:
        sums: :data:`SUMS` of each unit, float64, shape (units, 5); only those of w are used.
        elements: Number of elements of each unit, shape (units,).

    Returns:
        Shape (units, 3); the direction's factor is 0.
    """
    ww, w = sums[:, 0], sums[:, 3]
    mean_part = w**2 / elements
    left = ww - mean_part
    is_free = (left > PARALLEL * ww) & (mean_part > CENTRED * ww)
    stretch = torch.where(is_free, (ww / left).sqrt(), 1.0)
    shift = torch.where(is_free, -w / elements * stretch, 0.0)
    return torch.stack([stretch, torch.zeros_like(ww), shift], 1)
