"""What an optimizer does to a weight in one step, as data.

A rule is plain numbers, so the same object serves the probe (which reads it off a
live optimizer), the records (which store it as JSON) and the forecast (which reads it
off a config).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any


class NoPrediction(ValueError):
    """The theory has nothing to say about this optimizer or setting; the message says why."""


@dataclass(frozen=True)
class UpdateRule:
    """``torch.optim.SGD``'s update, for one parameter group.

    With g the loss gradient::

        v ← momentum · v + (1 − dampening) · (g + weight_decay · w)
        w ← w − lr · v                              (plain SGD and heavy ball)
        w ← w − lr · (g + weight_decay · w + momentum · v)        (Nesterov)

    Attributes:
        lr: Learning rate η.
        weight_decay: λ, coupled (added to the gradient).
        momentum: Heavy-ball α; 0 is plain SGD.
        dampening: Acts as ``lr · (1 − dampening)``.
        nesterov: Whether the step looks ahead along the momentum.

    Source: Wan et al., *Spherical Motion Dynamics*, §3 (SGD and heavy ball).
    """

    lr: float
    weight_decay: float
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    @classmethod
    def from_optimizer(cls, optimizer: object, group: Mapping[str, Any]) -> UpdateRule:
        """Read the rule off a live optimizer and one of its parameter groups.

        Args:
            optimizer: The optimizer; only its class is looked at.
            group: One of its ``param_groups``.

        Raises:
            NoPrediction: The optimizer is not ``torch.optim.SGD``, or maximizes.
        """
        return cls.from_config({**group, "type": type(optimizer).__name__})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> UpdateRule:
        """Read the rule off ``dict(type='SGD', lr=..., momentum=..., ...)``.

        Raises:
            NoPrediction: The type is not ``SGD``, or it maximizes.
        """
        name = str(config.get("type"))
        if name != "SGD":
            raise NoPrediction(f"no prediction for {name}: only SGD is known")
        if config.get("maximize"):
            raise NoPrediction("no prediction for SGD(maximize=True)")
        momentum = float(config.get("momentum", 0.0))
        return cls(
            lr=float(config["lr"]),
            weight_decay=float(config.get("weight_decay", 0.0)),
            momentum=momentum,
            # torch never reaches the dampening without a momentum buffer
            dampening=float(config.get("dampening", 0.0)) if momentum else 0.0,
            nesterov=bool(config.get("nesterov", False)),
        )

    def at(self, lr: float, weight_decay: float) -> UpdateRule:
        """Return the same rule at another point of its schedule."""
        return replace(self, lr=lr, weight_decay=weight_decay)

    @property
    def step_lr(self) -> float:
        """The learning rate that multiplies an undamped momentum buffer."""
        return self.lr * (1.0 - self.dampening)

    def to_json(self) -> dict[str, Any]:
        """Return the rule as a JSON-ready dict, the inverse of :meth:`from_config`."""
        return {"type": "SGD", **asdict(self)}
