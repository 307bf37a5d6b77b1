"""RotationalLion: Lion in rotational equilibrium from the first step on.

Kosson et al., *Rotational Equilibrium*, §5, arXiv 2305.17212.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..theory.update_rules import LionRule, UpdateRule
from .passes import Direction
from .rotational import RotationalOptimizer, rotational_defaults
from .sphere_optimizer import Numbers


class RotationalLion(RotationalOptimizer):
    """Lion whose rotational weights turn by the angle of Lion's own equilibrium.

    That angle is :func:`smd_hooks.theory.equilibrium_angle` of Lion's rule, for random
    gradients. The direction is sign(β₁·m + (1−β₁)·g), and m ← β₂·m + (1−β₂)·g after it.
    Ordinary parameters are stepped as Lion does. See
    :class:`~.rotational.RotationalOptimizer` for the step.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate η; Lion's carries over.
        betas: β₁ of the blend and β₂ of the momentum.
        weight_decay: λ; Lion's carries over.
        per_neuron: Units are rows (the first dimension), so that all neurons turn alike;
            else whole tensors.
        zero_mean: Take each unit's mean off, at the first step and off every direction.
        update_norm_decay: Decay of the running mean of ‖u‖²; ``0.9``, since at ``0.99`` it
            lags so far behind that angles are off by percents.
        schedule: ``"sqrt"``: η_r follows the root of lr, as equilibrium does (the default,
            as the paper's); ``"linear"``: lr itself, with the equilibrium of its peak.
        angle: η_r at the peak of the schedule in radians per step, in place of what lr and
            λ say; λ may then be 0.

    Example::

        optim_wrapper = dict(optimizer=dict(
            _delete_=True, type='smd_hooks.RotationalLion', lr=1e-4, weight_decay=1.0))
    """

    direction = Direction.SIGN
    buffers = ("exp_avg",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        per_neuron: bool = True,
        zero_mean: bool = True,
        update_norm_decay: float = 0.9,
        schedule: str = "sqrt",
        angle: float | None = None,
    ) -> None:
        own = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        shared = rotational_defaults(per_neuron, zero_mean, update_norm_decay, schedule, angle)
        super().__init__(params, own | shared)

    def _equilibrium_rule(self, group: Mapping[str, Any]) -> UpdateRule:
        return LionRule(1.0, 1.0, *group["betas"])

    def _numbers(self, group: Mapping[str, Any]) -> Numbers:
        beta1, beta2 = group["betas"]
        return {**self._sphere_numbers(group), "beta1": beta1, "beta2": beta2}

    def _settings(self, n: Numbers) -> list[Any]:
        # the blend of the old momentum and the gradient, by the new momentum
        a = n["beta1"] / n["beta2"]
        return [n["beta2"], a, 1 - a]

    def _ordinary_factors(self, n: Numbers) -> tuple[Any, Any]:
        return 1 - n["lr"] * n["weight_decay"], -n["lr"]

    def _reference_direction(self, n: Numbers, g: Tensor, buffers: Sequence[Tensor]) -> Tensor:
        (momentum,), b1, b2 = buffers, n["beta1"], n["beta2"]
        momentum.copy_(b2 * momentum.double() + (1 - b2) * g)
        # from the momentum as it is stored: its rounding may decide a sign
        before = (momentum.double() - (1 - b2) * g) / b2
        return torch.sign(b1 * before + (1 - b1) * g)
