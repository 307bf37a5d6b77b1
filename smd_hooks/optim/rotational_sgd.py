"""RotationalSGD: heavy-ball SGD in rotational equilibrium from the first step on.

Kosson et al., *Rotational Equilibrium*, §5, arXiv 2305.17212.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..theory.update_rules import SGDRule, UpdateRule
from .passes import Direction
from .rotational import RotationalOptimizer, rotational_defaults
from .sphere_optimizer import Numbers


class RotationalSGD(RotationalOptimizer):
    """SGD with momentum whose rotational weights turn by η_r = √(2ηλ/(1+α)) on average.

    Their direction is the momentum buffer of the gradient alone, v ← α·v + g. Ordinary
    parameters are stepped as ``torch.optim.SGD`` does, weight decay through the gradient.
    See :class:`~.rotational.RotationalOptimizer` for the step.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate η; SGD's carries over.
        momentum: α.
        weight_decay: λ; SGD's carries over.
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
            _delete_=True, type='smd_hooks.RotationalSGD', lr=0.1, weight_decay=1e-4))
    """

    direction = Direction.MOMENTUM
    buffers = ("momentum_buffer",)
    couples = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        per_neuron: bool = True,
        zero_mean: bool = True,
        update_norm_decay: float = 0.9,
        schedule: str = "sqrt",
        angle: float | None = None,
    ) -> None:
        own = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        shared = rotational_defaults(per_neuron, zero_mean, update_norm_decay, schedule, angle)
        super().__init__(params, own | shared)

    def _equilibrium_rule(self, group: Mapping[str, Any]) -> UpdateRule:
        return SGDRule(1.0, 1.0, momentum=group["momentum"])

    def _numbers(self, group: Mapping[str, Any]) -> Numbers:
        return {**self._sphere_numbers(group), "momentum": group["momentum"]}

    def _settings(self, n: Numbers) -> list[Any]:
        return [n["momentum"]]

    def _ordinary_factors(self, n: Numbers) -> tuple[Any, Any]:
        return 1 + 0 * n["lr"], -n["lr"]

    def _reference_direction(self, n: Numbers, g: Tensor, buffers: Sequence[Tensor]) -> Tensor:
        (momentum,) = buffers
        momentum.copy_(n["momentum"] * momentum.double() + g)
        return momentum.double()
