"""From optimizers to update rules: which classes are known, and how to read each.

A class is known by its full name, so that a stranger's ``Lion`` or a subclass of ``SGD``
with a step of its own gets no prediction rather than a wrong one. Nothing is imported:
an optimizer's package need not be installed for its name to be known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .rotation import is_rotational, lion_ar_constant, peak_lr_of, rotation_constant
from .update_rules import (
    FAMILIES,
    AdamRule,
    LionRule,
    NoPrediction,
    RotationalRule,
    SGDRule,
    UpdateRule,
)

Reader = Callable[[Mapping[str, Any]], UpdateRule]


@dataclass(frozen=True)
class _Known:
    """An optimizer class.

    Attributes:
        read: From a parameter group to its rule.
        defaults: The constructor's, for configs that leave a setting out.
        refused: Options that change the rule when they are on.
        attributes: Where the optimizer itself, not its groups, keeps an option.
    """

    read: Reader
    defaults: Mapping[str, Any] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


def _sgd(group: Mapping[str, Any]) -> SGDRule:
    momentum = float(group["momentum"])
    return SGDRule(
        lr=float(group["lr"]),
        weight_decay=float(group["weight_decay"]),
        momentum=momentum,
        # without a momentum buffer there is nothing that dampening acts on
        dampening=float(group["dampening"]) if momentum else 0.0,
        nesterov=bool(group["nesterov"]) and momentum > 0,
    )


def _sgdw(group: Mapping[str, Any]) -> SGDRule:
    return SGDRule(**{**vars(_sgd(group)), "decoupled": True})


def _betas(group: Mapping[str, Any]) -> tuple[float, float]:
    first, second = group["betas"]
    return float(first), float(second)


def _adam(group: Mapping[str, Any]) -> AdamRule:
    return AdamRule(
        float(group["lr"]),
        float(group["weight_decay"]),
        *_betas(group),
        decoupled=bool(group.get("decoupled_weight_decay", False)),
    )


def _adamw(group: Mapping[str, Any]) -> AdamRule:
    return _adam({**group, "decoupled_weight_decay": True})


def _lion(group: Mapping[str, Any]) -> LionRule:
    return LionRule(float(group["lr"]), float(group["weight_decay"]), *_betas(group))


def _lion_a(group: Mapping[str, Any]) -> LionRule:
    beta = float(group["beta"])
    return LionRule(
        float(group["lr"]),
        float(group["weight_decay"]),
        beta1=beta**2 if group["nesterov"] else beta,
        beta2=beta,
        scale=math.sqrt((1 - beta) / (1 + beta)),
    )


def _lion_ar(group: Mapping[str, Any]) -> UpdateRule:
    ordinary, nesterov = _lion_a(group), bool(group["nesterov"])
    if not is_rotational(group):
        if ordinary.weight_decay:
            raise NoPrediction("not applicable: LionAR has no weight decay but in what it turns")
        return ordinary
    constant = lion_ar_constant(ordinary.beta2, nesterov, group["matching"])
    corrected = ordinary.beta2 if group["inverse_bias_correction"] else 0.0
    return _turned(group, constant, corrected, nesterov)


def _rotational(group: Mapping[str, Any], ordinary: UpdateRule) -> UpdateRule:
    """Read a group of a rotational variant: its ordinary optimizer's rule if nothing is turned."""
    if not is_rotational(group):
        return ordinary
    return _turned(group, rotation_constant(ordinary))


def _turned(
    group: Mapping[str, Any],
    constant: float,
    corrected_beta: float = 0.0,
    nesterov: bool = False,
) -> RotationalRule:
    angle, peak_lr = group["angle"], float(peak_lr_of(group))
    if peak_lr == 0:  # paramwise_cfg's lr_mult=0
        raise NoPrediction("not applicable: learning rate is 0")
    return RotationalRule(
        float(group["lr"]),
        float(group["weight_decay"]),
        constant=constant,
        peak_lr=peak_lr,
        schedule=group["schedule"],
        angle=None if angle is None else float(angle),
        corrected_beta=corrected_beta,
        nesterov=nesterov,
    )


def _rotational_sgd(group: Mapping[str, Any]) -> UpdateRule:
    return _rotational(group, _sgd({"dampening": 0.0, "nesterov": False, **group}))


def _rotational_adamw(group: Mapping[str, Any]) -> UpdateRule:
    return _rotational(group, _adamw(group))


def _rotational_lion(group: Mapping[str, Any]) -> UpdateRule:
    return _rotational(group, _lion(group))


_SGD = {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
_ADAM = {"lr": 1e-3, "betas": (0.9, 0.999)}
_LION = {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0}
_TIMM = ("maximize", "caution", "corrected_weight_decay")
_LION_A = {
    "beta": 0.9,
    "weight_decay": 0.0,
    "nesterov": False,
    "inverse_bias_correction": False,
}
_TURNED = {"weight_decay": 0.0, "schedule": "sqrt", "angle": None}
_LION_PYTORCH = _Known(
    _lion, _LION, ("decoupled_weight_decay",), {"decoupled_weight_decay": "decoupled_wd"}
)

_known: dict[str, _Known] = {
    "torch.optim.sgd.SGD": _Known(_sgd, _SGD, ("maximize",)),
    "torch.optim.adam.Adam": _Known(_adam, {**_ADAM, "weight_decay": 0.0}, ("maximize", "amsgrad")),
    "torch.optim.adamw.AdamW": _Known(
        _adamw, {**_ADAM, "weight_decay": 1e-2}, ("maximize", "amsgrad")
    ),
    "lion_pytorch.lion_pytorch.Lion": _LION_PYTORCH,
    "lion_pytorch.foreach.Lion": _LION_PYTORCH,
    "timm.optim.lion.Lion": _Known(_lion, _LION, _TIMM),
    "timm.optim.sgdw.SGDW": _Known(_sgdw, _SGD, _TIMM),
    "smd_hooks.optim.lion_a.LionA": _Known(_lion_a, _LION_A),
    "smd_hooks.optim.lion_ar.LionAR": _Known(
        _lion_ar, {**_LION_A, "schedule": "linear", "matching": "adamw", "angle": None}
    ),
    "smd_hooks.optim.rotational_sgd.RotationalSGD": _Known(
        _rotational_sgd, {"momentum": 0.9, **_TURNED}
    ),
    "smd_hooks.optim.rotational_adamw.RotationalAdamW": _Known(
        _rotational_adamw, {"betas": (0.9, 0.999), **_TURNED}
    ),
    "smd_hooks.optim.rotational_lion.RotationalLion": _Known(
        _rotational_lion, {"betas": (0.9, 0.99), **_TURNED}
    ),
}

_SHORT_NAMES = {
    # MMEngine's registry, which takes Lion from lion-pytorch
    "SGD": "torch.optim.sgd.SGD",
    "Adam": "torch.optim.adam.Adam",
    "AdamW": "torch.optim.adamw.AdamW",
    "Lion": "lion_pytorch.lion_pytorch.Lion",
    # where the packages export them
    "torch.optim.SGD": "torch.optim.sgd.SGD",
    "torch.optim.Adam": "torch.optim.adam.Adam",
    "torch.optim.AdamW": "torch.optim.adamw.AdamW",
    "lion_pytorch.Lion": "lion_pytorch.lion_pytorch.Lion",
    "timm.optim.Lion": "timm.optim.lion.Lion",
    "timm.optim.SGDW": "timm.optim.sgdw.SGDW",
    # ours, in the registry and in the package
    **{
        prefix + name.rpartition(".")[2]: name
        for name in _known
        if name.startswith("smd_hooks.")
        for prefix in ("", "smd_hooks.", "smd_hooks.optim.")
    },
}


ROTATIONAL_UPDATE = "smd_rotational_update"
"""Attribute of an optimizer that is constrained from outside: its options, as a mapping."""


def constrained_group(optimizer: object, group: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a group with the options that its matrices are turned by, which it may override.

    Returns:
        None where :class:`smd_hooks.optim.RotationalUpdate` turns nothing of it.
    """
    options = getattr(optimizer, ROTATIONAL_UPDATE, None)
    if options is None:
        return None
    merged = {**options, **group}
    return merged if is_rotational(merged) else None


def register_rule(optimizer: str | type, reader: Reader) -> None:
    """Teach the theory an optimizer class.

    Args:
        optimizer: The class, or its full name ``package.module.Class`` with the module
            that defines it; for configs also a name as the registry has it.
        reader: From a parameter group (or a config with these keys) to the rule. It
            raises :class:`NoPrediction` for settings that the rule does not cover.

    Example, a sign optimizer of one's own, the sign of a running mean of gradients:

    >>> from smd_hooks.theory import LionRule, UpdateRule, register_rule
    >>> class Signum:
    ...     param_groups = [{"lr": 1e-3, "weight_decay": 0.1, "beta": 0.9}]
    >>> def read_signum(group):
    ...     return LionRule(group["lr"], group["weight_decay"], group["beta"], group["beta"])
    >>> register_rule(Signum, read_signum)
    >>> UpdateRule.from_optimizer(Signum(), Signum.param_groups[0])
    LionRule(lr=0.001, weight_decay=0.1, beta1=0.9, beta2=0.9, scale=1.0)
    """
    _known[_full_name(optimizer) if isinstance(optimizer, type) else optimizer] = _Known(reader)


def read_optimizer(optimizer: object, group: Mapping[str, Any]) -> UpdateRule:
    """Read one parameter group; see :meth:`UpdateRule.from_optimizer`."""
    name = _full_name(type(optimizer))
    known = _known.get(name)
    kept_aside = known.attributes.items() if known else ()
    options = {option: getattr(optimizer, attribute, None) for option, attribute in kept_aside}
    rule = _read(name, known, {**group, **options})
    turned = constrained_group(optimizer, group)
    if turned is None:
        return rule
    if turned["angle"] is not None:
        return _turned(turned, 1.0)  # the constant says nothing beside it
    try:
        return _turned(turned, rotation_constant(rule))
    except NoPrediction as reason:
        raise NoPrediction(f"{reason}; give an angle in radians per step") from None


def read_config(config: Mapping[str, Any]) -> UpdateRule:
    """Read an MMEngine optimizer dict; see :meth:`UpdateRule.from_config`."""
    kind = config.get("type")
    name = _full_name(kind) if isinstance(kind, type) else str(kind)
    known = _known.get(name) or _known.get(_SHORT_NAMES.get(name, ""))
    return _read(name, known, {**(known.defaults if known else {}), **config})


def _read(name: str, known: _Known | None, group: Mapping[str, Any]) -> UpdateRule:
    module, _, short = name.rpartition(".")
    if known is None:
        where = f" of {module}" if module else ""
        raise NoPrediction(
            f"no prediction for {short}{where}: its update rule is not known "
            "(smd_hooks.theory.register_rule adds one)"
        )
    for option in known.refused:
        if group.get(option):
            raise NoPrediction(
                f"no prediction for {short}({option}={group[option]}): it changes the update rule"
            )
    try:
        rule = known.read(group)
        settings: dict[str, Any] = {
            k: v if v is None or isinstance(v, bool | str) else float(v)
            for k, v in vars(rule).items()
        }
    except NoPrediction:
        raise
    except KeyError as missing:
        raise NoPrediction(f"no prediction for {short}: it has no setting {missing}") from missing
    except Exception as error:  # a user's reader must not end the training
        reason = f"{type(error).__name__}: {error}"
        raise NoPrediction(f"no prediction for {short}: its reader failed ({reason})") from error
    if type(rule) not in FAMILIES.values():
        families = ", ".join(family.__name__ for family in FAMILIES.values())
        raise NoPrediction(
            f"no prediction for {short}: its reader gave {type(rule).__name__}, not {families}"
        )
    return type(rule)(**settings)


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
