"""Where known optimizers keep their momentum, and how a step changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch.optim import Optimizer

from ..theory import is_rotational
from ..theory.rule_readers import constrained_group


@dataclass(frozen=True)
class Momentum:
    """The recursion v ← keep · v + gain · (g + decay · w) of a momentum buffer.

    The buffer before the step is not kept: ⟨v₋₁, g⟩ follows from the one after it.

    Attributes:
        key: Its name in the optimizer's state.
        keep: α or β.
        gain: 1 − dampening, or 1 − β.
        decay: λ where weight decay goes through the buffer, else 0.
        square_key: Name of the running mean of g², where there is one.
    """

    key: str
    keep: Any
    gain: Any
    decay: Any
    square_key: str | None = None

    def undo(self) -> tuple[float, float, float]:
        """Return how ⟨v₋₁, g⟩ combines from ⟨v, g⟩, ‖g‖² and ⟨w, g⟩; zeros if nothing is kept."""
        keep, gain, decay = float(self.keep), float(self.gain), float(self.decay)
        return (1 / keep, -gain / keep, -gain * decay / keep) if keep else (0.0, 0.0, 0.0)


def _sgd(group: Mapping[str, Any]) -> Momentum:
    decay = group["weight_decay"]
    return Momentum("momentum_buffer", group["momentum"], 1.0 - group["dampening"], decay)


def _sgdw(group: Mapping[str, Any]) -> Momentum:
    return Momentum("momentum_buffer", group["momentum"], 1.0 - group["dampening"], 0.0)


def _adamw(group: Mapping[str, Any]) -> Momentum:
    beta = group["betas"][0]
    return Momentum("exp_avg", beta, 1.0 - beta, 0.0, "exp_avg_sq")


def _adam(group: Mapping[str, Any]) -> Momentum:
    beta = group["betas"][0]
    decay = 0.0 if group.get("decoupled_weight_decay") else group["weight_decay"]
    return Momentum("exp_avg", beta, 1.0 - beta, decay, "exp_avg_sq")


def _lion(group: Mapping[str, Any]) -> Momentum:
    beta = group["betas"][1]
    return Momentum("exp_avg", beta, 1.0 - beta, 0.0)


def _lion_a(group: Mapping[str, Any]) -> Momentum:
    return Momentum("exp_avg", group["beta"], 1.0 - group["beta"], 0.0)


def _rotational_sgd(group: Mapping[str, Any]) -> Momentum:
    decay = 0.0 if is_rotational(group) else group["weight_decay"]
    return Momentum("momentum_buffer", group["momentum"], 1.0, decay)


_KNOWN = {
    "torch.optim.sgd.SGD": _sgd,
    "torch.optim.adam.Adam": _adam,
    "torch.optim.adamw.AdamW": _adamw,
    "lion_pytorch.lion_pytorch.Lion": _lion,
    "lion_pytorch.foreach.Lion": _lion,
    "timm.optim.lion.Lion": _lion,
    "timm.optim.sgdw.SGDW": _sgdw,
    "smd_hooks.optim.lion_a.LionA": _lion_a,
    "smd_hooks.optim.lion_ar.LionAR": _lion_a,
    "smd_hooks.optim.rotational_sgd.RotationalSGD": _rotational_sgd,
    "smd_hooks.optim.rotational_adamw.RotationalAdamW": _adamw,
    "smd_hooks.optim.rotational_lion.RotationalLion": _lion,
}


def momentum_of(optimizer: Optimizer, group: Mapping[str, Any]) -> Momentum | None:
    """Return how the group's momentum moves, or None if the optimizer is not known.

    Args:
        optimizer: The optimizer; only its exact class is looked at.
        group: One of its ``param_groups``.
    """
    kind = type(optimizer)
    read = _KNOWN.get(f"{kind.__module__}.{kind.__qualname__}")
    if read is None or group.get("maximize"):
        return None
    momentum = read(group)
    # a rotational update leaves no weight decay in the buffers of what it turns
    return momentum if constrained_group(optimizer, group) is None else replace(momentum, decay=0.0)
