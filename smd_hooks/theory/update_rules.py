"""What an optimizer does to a weight in one step, as data.

Three families cover the ordinary optimizers that theory speaks of: a momentum buffer of
gradients (SGD), the same divided by a running root mean square (Adam), and the sign of a
blend of both (Lion). A fourth turns weights by a set angle (rotational). A rule is plain
numbers, so the same object serves the probe (which reads it off a live optimizer), the
records (which store it as JSON) and the forecast (which reads it off a config).

Throughout, g is the loss gradient, and a step is w' = (1 − ηλ)·w − η·u where weight decay
is decoupled, w' = w − η·u where it is coupled, that is, a part of u.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

Rule = TypeVar("Rule", bound="UpdateRule")

SCHEDULES = ("linear", "sqrt")
"""How a set angle may follow the learning rate, see :func:`smd_hooks.theory.step_angle`."""


class NoPrediction(ValueError):
    """The theory has nothing to say about this optimizer or setting; the message says why."""


@dataclass(frozen=True)
class UpdateRule:
    """The update of one parameter group: what all families share.

    Attributes:
        lr: Learning rate η.
        weight_decay: λ, per unit of learning rate.
    """

    lr: float
    weight_decay: float

    @staticmethod
    def from_optimizer(optimizer: object, group: Mapping[str, Any]) -> UpdateRule:
        """Read the rule off a live optimizer and one of its parameter groups.

        The optimizer is recognised by its exact class, not by its name and not as a
        subclass: who overrides a step changes the rule.

        Args:
            optimizer: The optimizer; its class is looked at, and what some keep as
                attributes rather than in their groups.
            group: One of its ``param_groups``. Tensor settings are read as floats.

        Raises:
            NoPrediction: The optimizer is not known (see
                :func:`smd_hooks.theory.register_rule`), or has an option on that changes
                its rule.
        """
        from .rule_readers import read_optimizer  # readers build rules: they import this file

        return read_optimizer(optimizer, group)

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> UpdateRule:
        """Read the rule off an MMEngine optimizer dict, ``dict(type='SGD', lr=..., ...)``.

        ``type`` is a name as MMEngine's registry has it (``SGD``, ``AdamW``, ``Adam``,
        ``Lion``), a dotted name (``torch.optim.SGD``) or a class. What the dict leaves out
        has the constructor's default.

        Raises:
            NoPrediction: As :meth:`from_optimizer`; or there is no learning rate.
        """
        from .rule_readers import read_config

        return read_config(config)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> UpdateRule:
        """Rebuild a rule from what :meth:`to_json` returned.

        Raises:
            NoPrediction: The record's type or one of its settings is not known here.

        >>> UpdateRule.from_json(LionRule(1e-3, 0.1).to_json())
        LionRule(lr=0.001, weight_decay=0.1, beta1=0.9, beta2=0.99, scale=1.0)
        """
        settings = dict(record)
        family = FAMILIES.get(settings.pop("type", None))
        if family is None or not settings.keys() <= {field.name for field in fields(family)}:
            raise NoPrediction(f"no prediction for {dict(record)}: not a rule known here")
        return family(**settings)

    def to_json(self) -> dict[str, Any]:
        """Return the rule as a JSON-ready dict, the inverse of :meth:`from_json`."""
        return {"type": type(self).__name__.removesuffix("Rule"), **asdict(self)}

    def at(self: Rule, lr: float, weight_decay: float) -> Rule:
        """Return the same rule at another point of its schedule."""
        return replace(self, lr=lr, weight_decay=weight_decay)

    @property
    def constants(self) -> tuple[tuple[str, Any], ...]:
        """Type and settings but for lr and weight decay: what a run should not change.

        >>> SGDRule(0.1, 1e-4, 0.9).constants[:2]
        (('type', 'SGD'), ('momentum', 0.9))
        """
        return tuple(
            item for item in self.to_json().items() if item[0] not in ("lr", "weight_decay")
        )


@dataclass(frozen=True)
class SGDRule(UpdateRule):
    """SGD, with or without momentum, with coupled or decoupled weight decay.

    Coupled, as ``torch.optim.SGD``, with G = g + weight_decay · w; decoupled (SGDW) with
    G = g::

        v ← momentum · v + (1 − dampening) · G
        u = v                                       (plain SGD and heavy ball)
        u = G + momentum · v                        (Nesterov)

    Attributes:
        momentum: Heavy-ball α; 0 is plain SGD.
        dampening: Share of each gradient that the buffer leaves out; 0 for Nesterov.
        nesterov: Whether the step looks ahead along the momentum.
        decoupled: Whether decay is taken off the weight instead of into the gradient.

    Raises:
        NoPrediction: Momentum outside [0, 1), or Nesterov's with dampening.

    Source: Wan et al., *Spherical Motion Dynamics*, §3 (SGD and heavy ball).
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    decoupled: bool = False

    def __post_init__(self) -> None:
        _check_forgetting(self, "momentum", "dampening")
        if self.nesterov and self.dampening:
            raise NoPrediction("no prediction for Nesterov momentum with dampening")


@dataclass(frozen=True)
class AdamRule(UpdateRule):
    """AdamW, or Adam with L2 regularisation.

    With bias-corrected running means m̂ of G (``beta1``) and v̂ of G² (``beta2``),
    u = m̂/(√v̂ + ε), where G = g for AdamW (``decoupled``) and G = g + weight_decay · w
    for Adam with L2. Betas lie in [0, 1), or there is no prediction.

    Source: Kosson et al., *Rotational Equilibrium* (AdamW, Adam+L2).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    decoupled: bool = True

    def __post_init__(self) -> None:
        _check_forgetting(self, "beta1", "beta2")


@dataclass(frozen=True)
class LionRule(UpdateRule):
    """Lion and every other sign rule, with decoupled weight decay.

    ::

        u = scale · sign(beta1 · m + (1 − beta1) · g)
        m ← beta2 · m + (1 − beta2) · g

    The sign of a running mean with β is beta1 = beta2 = β; the sign of a running mean
    with Nesterov's look-ahead is beta1 = β², beta2 = β; signSGD is beta1 = 0. Betas lie
    in [0, 1), or there is no prediction.

    Attributes:
        beta1: Share of the buffer in the blend whose sign is taken.
        beta2: Decay of the buffer.
        scale: Size of each coordinate's step in units of lr.

    Source: Kosson et al., *Rotational Equilibrium* (Lion).
    """

    beta1: float = 0.9
    beta2: float = 0.99
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_forgetting(self, "beta1", "beta2")


@dataclass(frozen=True)
class RotationalRule(UpdateRule):
    """An optimizer that turns each weight by a set angle and keeps its norm: LionAR and kin.

    The weight is in equilibrium by construction, from the first step on. What is set is
    :func:`smd_hooks.theory.step_angle`; the settings are that function's.

    Attributes:
        constant: c, of what the peak's angle is, c·√(peak_lr · weight_decay).
        peak_lr: Learning rate at the peak of the schedule.
        schedule: ``"linear"`` or ``"sqrt"``: how the angle follows the learning rate.
        angle: The peak's angle in radians, if it was given instead of a weight decay.
        corrected_beta: Decay of the running mean whose early steps an inverse bias
            correction makes smaller; 0 without such a correction.
        nesterov: Whether that mean's sign is taken with Nesterov's look-ahead.

    Raises:
        NoPrediction: A setting is not positive where it must be, or the schedule is no
            known one.

    Source: Kosson et al., *Rotational Equilibrium*, §5, and *Analyzing & Reducing the Need
    for Learning Rate Warmup in GPT Training*, §5.
    """

    constant: float
    peak_lr: float
    schedule: str = "linear"
    angle: float | None = None
    corrected_beta: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        for name in ("constant", "peak_lr", "angle"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise NoPrediction(f"no prediction for {name}={value}: not positive")
        if self.schedule not in SCHEDULES:
            raise NoPrediction(f"no prediction for schedule={self.schedule!r}: not linear or sqrt")
        _check_forgetting(self, "corrected_beta")

    @property
    def angular_update(self) -> float:
        """Angle of a step at this learning rate and weight decay, in radians.

        It is what an inverse bias correction comes to; see
        :func:`smd_hooks.theory.early_excess` for the steps before.
        """
        from .rotation import step_angle  # constants of rules stand there: it imports this file

        settings = (self.constant, self.peak_lr, self.schedule, self.angle)
        return float(step_angle(self.lr, self.weight_decay, *settings))

    @property
    def peak_angle(self) -> float:
        """Angle of a step at the peak of the schedule, in radians."""
        return self.at(self.peak_lr, self.weight_decay).angular_update


def _check_forgetting(rule: UpdateRule, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(rule, name) < 1:
            raise NoPrediction(f"no prediction for {name}={getattr(rule, name)}: not in [0, 1)")


FAMILIES: dict[Any, type[UpdateRule]] = {
    "SGD": SGDRule,
    "Adam": AdamRule,
    "Lion": LionRule,
    "Rotational": RotationalRule,
}
"""Every family by the ``type`` that records know it by."""
