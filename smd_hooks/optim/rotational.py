"""What RotationalSGD, RotationalAdamW and RotationalLion share: the angle is right on average.

Kosson et al., *Rotational Equilibrium: How Weight Decay Balances Learning Across Neural
Networks*, §5 and Algorithm 1, arXiv 2305.17212.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..theory.rotation import rotation_constant
from ..theory.update_rules import UpdateRule
from .sphere import TINY, average_rotation_factors, tangent
from .sphere_optimizer import Numbers, SphereOptimizer
from .turning import angle_now


class RotationalOptimizer(SphereOptimizer):
    """An ordinary optimizer's direction, turned by the angle of its own equilibrium.

    At the first step each unit's mean is taken off, its norm kept, and that norm n stored
    for good. Then, per step::

        u = the inner optimizer's direction, without lr and weight decay
        u ← u − mean(u);   u ← u − w⟨u,w⟩/‖w‖²
        ū = √(running mean of ‖u‖², corrected for its start)
        w ← w − η_r·n·u/ū;   w ← n·w/‖w‖

    So the RMS angle is η_r, while single steps differ as the inner optimizer's do; where its
    direction shrinks over the first steps, as AdamW's does, ū lags behind and angles are
    smaller for some tens of steps. What is not rotational takes the inner optimizer's ordinary
    update, weight decay included; so do vectors, unless ``rotational=True`` and
    ``per_neuron=False`` make them a unit. A transformer may want learnable gains where its
    weights' norms are now fixed.
    """

    def _equilibrium_rule(self, group: Mapping[str, Any]) -> UpdateRule:
        """Return the inner optimizer's rule, whose equilibrium is imitated."""
        raise NotImplementedError

    def _sphere_numbers(self, group: Mapping[str, Any]) -> Numbers:
        return {
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
            "angle": angle_now(group, rotation_constant(self._equilibrium_rule(group))),
            "zero_mean": float(group["zero_mean"]),
            "update_norm_decay": group["update_norm_decay"],
        }

    def _at_this_step(self, n: Numbers) -> Numbers:
        return {**n, "seen": 1 - n["update_norm_decay"] ** n["step"]}

    def _turning_factors(self, n: Numbers, sums: Tensor) -> tuple[Tensor, Tensor | None]:
        return average_rotation_factors(
            sums,
            n["elements"],
            n["zero_mean"] > 0,
            n["radius"],
            n["angle"],
            n["update_norm"],
            n["update_norm_decay"],
            n["seen"],
        )

    def _reference_turn(self, n: Numbers, w: Tensor, u: Tensor) -> tuple[Tensor, Tensor | None]:
        u, d = tangent(w, u, zero_mean=n["zero_mean"] > 0), n["update_norm_decay"]
        average = d * n["update_norm"] ** 2 + (1 - d) * u.norm(dim=1, keepdim=True) ** 2
        typical = (average / n["seen"]).sqrt()
        w = w - n["angle"] * n["radius"] * u / (typical + TINY)
        return n["radius"] * w / w.norm(dim=1, keepdim=True), average.sqrt()


def rotational_defaults(
    per_neuron: bool,
    zero_mean: bool,
    update_norm_decay: float,
    schedule: str,
    angle: float | None,
) -> dict[str, Any]:
    """Return the options that all rotational variants have, as group defaults."""
    return {
        "per_neuron": per_neuron,
        "zero_mean": zero_mean,
        "update_norm_decay": update_norm_decay,
        "schedule": schedule,
        "angle": angle,
    }
