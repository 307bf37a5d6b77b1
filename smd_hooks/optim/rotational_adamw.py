"""RotationalAdamW: AdamW in rotational equilibrium from the first step on.

Kosson et al., *Rotational Equilibrium*, §5, arXiv 2305.17212.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..theory.update_rules import AdamRule, UpdateRule
from .passes import Direction
from .rotational import RotationalOptimizer, rotational_defaults
from .sphere_optimizer import Numbers


class RotationalAdamW(RotationalOptimizer):
    """AdamW whose rotational weights turn by η_r = √(2ηλ(1−β₁)/(1+β₁)) on average.

    Their direction is m̂/(√v̂ + ε), as AdamW's. Ordinary parameters are stepped as
    ``torch.optim.AdamW`` does. See :class:`~.rotational.RotationalOptimizer` for the step.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate η; AdamW's carries over.
        betas: β₁ of the momentum and β₂ of the squares.
        eps: ε, added to the root of the squares' mean.
        weight_decay: λ; AdamW's carries over.
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
            _delete_=True, type='smd_hooks.RotationalAdamW', lr=1e-3, weight_decay=0.05))
    """

    direction = Direction.ADAM
    buffers = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        per_neuron: bool = True,
        zero_mean: bool = True,
        update_norm_decay: float = 0.9,
        schedule: str = "sqrt",
        angle: float | None = None,
    ) -> None:
        own = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        shared = rotational_defaults(per_neuron, zero_mean, update_norm_decay, schedule, angle)
        super().__init__(params, own | shared)

    def _check(self, group: Mapping[str, Any]) -> None:
        super()._check(group)
        if not group["eps"] >= 0:
            raise ValueError(f"RotationalAdamW: eps must be 0 or more, got {group['eps']!r}")

    def _equilibrium_rule(self, group: Mapping[str, Any]) -> UpdateRule:
        return AdamRule(1.0, 1.0, *group["betas"])

    def _numbers(self, group: Mapping[str, Any]) -> Numbers:
        beta1, beta2 = group["betas"]
        own = {"beta1": beta1, "beta2": beta2, "eps": group["eps"]}
        return {**self._sphere_numbers(group), **own}

    def _settings(self, n: Numbers) -> list[Any]:
        s1 = 1 / (1 - n["beta1"] ** n["step"])
        s2 = (1 - n["beta2"] ** n["step"]) ** -0.5
        return [n["beta1"], n["beta2"], n["eps"], s1, s2]

    def _ordinary_factors(self, n: Numbers) -> tuple[Any, Any]:
        return 1 - n["lr"] * n["weight_decay"], -n["lr"]

    def _reference_direction(self, n: Numbers, g: Tensor, buffers: Sequence[Tensor]) -> Tensor:
        m, v = buffers
        m.copy_(n["beta1"] * m.double() + (1 - n["beta1"]) * g)
        v.copy_(n["beta2"] * v.double() + (1 - n["beta2"]) * g**2)
        m_hat = m.double() / (1 - n["beta1"] ** n["step"])
        v_hat = v.double() / (1 - n["beta2"] ** n["step"])
        return m_hat / (v_hat.sqrt() + n["eps"])
