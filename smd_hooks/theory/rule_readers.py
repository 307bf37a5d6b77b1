"""From optimizers to update rules: which classes are known, and how to read each.

A class is known by its full name, so that a stranger's ``Lion`` or a subclass of ``SGD``
with a step of its own gets no prediction rather than a wrong one. Nothing is imported:
an optimizer's package need not be installed for its name to be known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .update_rules import AdamRule, LionRule, NoPrediction, SGDRule, UpdateRule

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


_SGD = {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
_ADAM = {"lr": 1e-3, "betas": (0.9, 0.999)}
_LION = {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0}
_TIMM = ("maximize", "caution", "corrected_weight_decay")
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
}


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
    return _read(name, known, {**group, **options})


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
        settings = {k: v if isinstance(v, bool) else float(v) for k, v in vars(rule).items()}
    except NoPrediction:
        raise
    except KeyError as missing:
        raise NoPrediction(f"no prediction for {short}: it has no setting {missing}") from missing
    except Exception as error:  # a user's reader must not end the training
        reason = f"{type(error).__name__}: {error}"
        raise NoPrediction(f"no prediction for {short}: its reader failed ({reason})") from error
    if type(rule) not in (SGDRule, AdamRule, LionRule):
        raise NoPrediction(
            f"no prediction for {short}: its reader gave {type(rule).__name__}, "
            "not SGDRule, AdamRule or LionRule"
        )
    return type(rule)(**settings)


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
