"""LionA: Lion whose update norm is AdamW's.

Kosson et al., *Analyzing & Reducing the Need for Learning Rate Warmup in GPT Training*,
§4–5, arXiv 2410.23922. The authors released no code and leave the scale γ, and how the
bias correction is inverted, to the reader: what stands here is our reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..theory.rotation import inverse_bias_factor
from .passes import Direction
from .sphere_optimizer import Numbers, SphereOptimizer


class LionA(SphereOptimizer):
    """Sign steps of a controlled norm: ‖w' − (1−ηλ)w‖ = ηγ√C from the first step on.

    ::

        m ← β·m + (1−β)·g
        z = β·m + (1−β)·g   (Nesterov)   or   m
        w ← (1 − ηλ)·w − ηγ·s·sign(z),   γ = √((1−β)/(1+β))

    With C coordinates, γ√C is the norm of AdamW's late update for random gradients: its
    lr and weight decay carry over. There is one β and no second moment. s is 1, or the
    inverse bias correction. This controls the ℓ2 norm, not the angle: the paper finds
    that it does not remove the need for warmup (:class:`~smd_hooks.optim.LionAR` does).

    Args:
        params: Parameters or groups of them.
        lr: Learning rate η.
        beta: Decay β of the momentum; ``0.9`` as AdamW's β₁, which γ matches.
        weight_decay: λ, decoupled.
        nesterov: Take the sign of a look-ahead.
        inverse_bias_correction: Scale early steps down by
            :func:`smd_hooks.theory.inverse_bias_factor`, so that the first gradients
            contribute no more than later ones.

    Example::

        optim_wrapper = dict(optimizer=dict(
            _delete_=True, type='smd_hooks.LionA', lr=1e-3, weight_decay=0.05))
    """

    direction = Direction.SIGN
    buffers = ("exp_avg",)
    rotates = False
    averages = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        beta: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        inverse_bias_correction: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "beta": beta,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "inverse_bias_correction": inverse_bias_correction,
        }
        super().__init__(params, defaults)

    def _numbers(self, group: Mapping[str, Any]) -> Numbers:
        return sign_numbers(group)

    def _at_this_step(self, n: Numbers) -> Numbers:
        return {**n, "share": early_share(n)}

    def _settings(self, n: Numbers) -> list[Any]:
        return sign_settings(n)

    def _ordinary_factors(self, n: Numbers) -> tuple[Any, Any]:
        return 1 - n["lr"] * n["weight_decay"], -n["lr"] * n["scale"] * n["share"]

    def _reference_direction(self, n: Numbers, g: Tensor, buffers: Sequence[Tensor]) -> Tensor:
        return sign_of_momentum(n, g, buffers[0])


def sign_numbers(group: Mapping[str, Any]) -> Numbers:
    """Return what a group of LionA or LionAR says about its sign steps."""
    beta = group["beta"]
    return {
        "lr": group["lr"],
        "weight_decay": group["weight_decay"],
        "beta": beta,
        "scale": ((1 - beta) / (1 + beta)) ** 0.5,
        "nesterov": float(group["nesterov"]),
        "inverse_bias_correction": float(group["inverse_bias_correction"]),
    }


def sign_settings(n: Numbers) -> list[Any]:
    """Return keep, a and b of u = sign(a·m + b·g), as :class:`~.passes.Direction` has them."""
    ahead = n["nesterov"]
    return [n["beta"], 1 - ahead * (1 - n["beta"]), ahead * (1 - n["beta"])]


def early_share(n: Numbers) -> Any:
    """Return the inverse bias correction where it is asked for, else 1."""
    plain, ahead = (inverse_bias_factor(n["beta"], n["step"], kind) for kind in (False, True))
    factor = plain + n["nesterov"] * (ahead - plain)
    return 1 - n["inverse_bias_correction"] * (1 - factor)


def sign_of_momentum(n: Numbers, g: Tensor, momentum: Tensor) -> Tensor:
    """Blend the gradient into the momentum, and return the sign that the step takes."""
    beta = n["beta"]
    momentum.copy_(beta * momentum.double() + (1 - beta) * g)
    z = momentum.double()
    if n["nesterov"]:
        z = beta * z + (1 - beta) * g
    return torch.sign(z)
