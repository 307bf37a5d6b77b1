"""LionAR: sign steps that turn each neuron by a set angle.

Kosson et al., *Analyzing & Reducing the Need for Learning Rate Warmup in GPT Training*,
§5–6, arXiv 2410.23922. The authors released no code, and leave open what follows a
schedule, what the unit is and how the bias correction is inverted: what stands here is
our reading, and every such choice is an option.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..theory.rotation import MATCHINGS, lion_ar_constant
from .lion_a import early_share, sign_numbers, sign_of_momentum, sign_settings
from .passes import Direction
from .sphere import great_circle_factors, tangent, turned
from .sphere_optimizer import Numbers, SphereOptimizer
from .turning import angle_now


class LionAR(SphereOptimizer):
    """Sign steps along the sphere: each unit turns by η_r exactly and keeps its norm.

    ::

        m ← β·m + (1−β)·g
        z = β·m + (1−β)·g   (Nesterov)   or   m
        d = sign(z) without its part along w, normalized
        w ← R₀·(cos(s·η_r)·w/‖w‖ − sin(s·η_r)·d)

    R₀ is the norm at the first step, kept in the state. There is no weight decay: keeping
    the norm is in its place, and λ only sets the angle. What is not rotational (gains,
    biases, ``rotational=False``, rows of norm 0) takes LionA's step without decay.

    The paper finds that without warmup β = .98 with Nesterov and inverse bias correction is
    best. That recipe is for the user to choose::

        LionAR(params, lr=6e-4, beta=0.98, weight_decay=0.1, nesterov=True,
               inverse_bias_correction=True)

    Args:
        params: Parameters or groups of them.
        lr: Learning rate η; AdamW's carries over.
        beta: Decay β of the momentum.
        weight_decay: λ; AdamW's carries over.
        nesterov: Take the sign of a look-ahead.
        inverse_bias_correction: Scale early angles down by
            :func:`smd_hooks.theory.inverse_bias_factor`; without it (s = 1) the first
            gradients turn weights as far as many later ones together do.
        per_neuron: Units are rows (the first dimension), so that all neurons turn alike;
            else whole tensors.
        schedule: ``"linear"``: η_r follows lr, as ordinary steps do (the default: a warmup
            then means the same as elsewhere); ``"sqrt"``: its root, as equilibrium does.
        matching: ``"adamw"``: η_r = √(2ηλ(1−β)/(1+β)), the angle of AdamW in equilibrium;
            ``"net"``: √(π/2) more, so that a weight gets as far in many steps as a sign
            optimizer's in equilibrium would, whose steps are less alike.
        angle: η_r at the peak of the schedule in radians per step, in place of what lr and
            λ say; λ may then be 0.

    Example::

        optim_wrapper = dict(optimizer=dict(
            _delete_=True, type='smd_hooks.LionAR', lr=1e-3, weight_decay=0.1))
    """

    direction = Direction.SIGN
    buffers = ("exp_avg",)
    averages = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        beta: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        inverse_bias_correction: bool = False,
        per_neuron: bool = True,
        schedule: str = "linear",
        matching: str = "adamw",
        angle: float | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "beta": beta,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "inverse_bias_correction": inverse_bias_correction,
            "per_neuron": per_neuron,
            "schedule": schedule,
            "matching": matching,
            "angle": angle,
        }
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        super()._check(group)
        if group["matching"] not in MATCHINGS:
            raise ValueError(
                f"LionAR: matching must be 'adamw' or 'net', got {group['matching']!r}"
            )

    def _numbers(self, group: Mapping[str, Any]) -> Numbers:
        constant = lion_ar_constant(group["beta"], group["nesterov"], group["matching"])
        return {**sign_numbers(group), "angle": angle_now(group, constant)}

    def _at_this_step(self, n: Numbers) -> Numbers:
        share = early_share(n)
        return {**n, "share": share, "angle": n["angle"] * share}

    def _settings(self, n: Numbers) -> list[Any]:
        return sign_settings(n)

    def _ordinary_factors(self, n: Numbers) -> tuple[Any, Any]:
        return 1 + 0 * n["lr"], -n["lr"] * n["scale"] * n["share"]

    def _turning_factors(self, n: Numbers, sums: Tensor) -> tuple[Tensor, Tensor | None]:
        return great_circle_factors(sums, n["radius"], n["angle"]), None

    def _reference_direction(self, n: Numbers, g: Tensor, buffers: Sequence[Tensor]) -> Tensor:
        return sign_of_momentum(n, g, buffers[0])

    def _reference_turn(self, n: Numbers, w: Tensor, u: Tensor) -> tuple[Tensor, Tensor | None]:
        return turned(w, tangent(w, u), n["angle"], n["radius"]), None
