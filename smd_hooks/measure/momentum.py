"""Where known optimizers keep their momentum, and how a step changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer


@dataclass(frozen=True)
class Momentum:
    """The recursion v ← keep · v + gain · (g + decay · w) of a momentum buffer.

    The buffer before the step is not kept: ⟨v₋₁, g⟩ follows from the one after it.

    Attributes:
        key: Its name in the optimizer's state.
        keep: α or β.
        gain: 1 − dampening, or 1 − β.
        decay: λ where weight decay goes through the buffer, else 0.
    """

    key: str
    keep: Any
    gain: Any
    decay: Any

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
    return Momentum("exp_avg", beta, 1.0 - beta, 0.0)


def _adam(group: Mapping[str, Any]) -> Momentum:
    beta = group["betas"][0]
    decay = 0.0 if group.get("decoupled_weight_decay") else group["weight_decay"]
    return Momentum("exp_avg", beta, 1.0 - beta, decay)


def _lion(group: Mapping[str, Any]) -> Momentum:
    beta = group["betas"][1]
    return Momentum("exp_avg", beta, 1.0 - beta, 0.0)


_KNOWN = {
    "torch.optim.sgd.SGD": _sgd,
    "torch.optim.adam.Adam": _adam,
    "torch.optim.adamw.AdamW": _adamw,
    "lion_pytorch.lion_pytorch.Lion": _lion,
    "timm.optim.lion.Lion": _lion,
    "timm.optim.sgdw.SGDW": _sgdw,
}


def momentum_of(optimizer: Optimizer, group: Mapping[str, Any]) -> Momentum | None:
    """Return how the group's momentum moves, or None if the optimizer is not known.

    Args:
        optimizer: The optimizer; only its exact class is looked at.
        group: One of its ``param_groups``.
    """
    kind = type(optimizer)
    read = _KNOWN.get(f"{kind.__module__}.{kind.__qualname__}")
    return None if read is None or group.get("maximize") else read(group)
