"""Parameter groups for a plain PyTorch loop: what turns, what does not, what does not decay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..measure.invariance import BATCHES, ScaleInvarianceObserver
from ..measure.parameters import plain_name
from ..measure.verdict import Verdict
from .lion_a import LionA

Batch = TypeVar("Batch")

TRIAL_LR = 1e-4
"""How far each coordinate of the copy goes per step: as good as nowhere, but a gain that begins
at 0 leaves it, and then what it scales has a gradient."""


def param_groups(
    model: nn.Module,
    ordinary: str | Iterable[str] = (),
    scale_invariant: Iterable[Verdict] | None = None,
) -> list[dict[str, Any]]:
    """Sort a model's parameters for a rotational optimizer.

    The rule is the optimizers' own, matrices (two dimensions or more) turn, with what usage
    adds: gains and biases do not decay. Frozen parameters are left out, and tied ones come once.

    Args:
        model: The model, wrapped (DDP, ``torch.compile``) or not. With FSDP2 call this
            after sharding.
        ordinary: Patterns as in a shell, of modules or parameters: ``"head"``,
            ``"blocks.*.attn"``, ``"*.embedding.weight"``. Matrices that one of them matches
            take the inner optimizer's ordinary update.
        scale_invariant: Verdicts of :func:`find_scale_invariant`, or of an
            :class:`~smd_hooks.measure.InvarianceWatch` that watched a training. If given, only
            matrices turn that are scale-invariant by themselves; the others are ordinary.

    Returns:
        Groups named ``rotational``, ``ordinary`` (matrices; they decay, where the optimizer
        lets ordinary parameters decay at all) and ``gains and biases``, those that are
        not empty. Their ``param_names`` make loading refuse a checkpoint in another order.

    Raises:
        ValueError: A pattern matches nothing, or a matrix has no verdict.

    Example::

        groups = param_groups(model, ordinary=["head", "*.embedding.weight"])
        optimizer = LionAR(groups, lr=1e-3, weight_decay=0.1)
    """
    names: dict[Tensor, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(plain_name(name))
    patterns = [ordinary] if isinstance(ordinary, str) else list(ordinary)
    for pattern in patterns:
        if not any(_matches(own, [pattern]) for own in names.values()):
            raise ValueError(
                f"param_groups: ordinary={pattern!r} matches no parameter and no module that has "
                f"one; the model has {', '.join(name for name, _ in model.named_children())}"
            )
    verdicts = None if scale_invariant is None else {v.parameter: v for v in scale_invariant}
    groups: dict[str, dict[str, Any]] = {
        "rotational": {"rotational": True},
        "ordinary": {"rotational": False},
        "gains and biases": {"rotational": False, "weight_decay": 0.0},
    }
    for group in groups.values():
        group |= {"params": [], "param_names": []}
    for weight, own in names.items():
        if not weight.requires_grad:
            continue
        if weight.ndim < 2:
            kind = "gains and biases"
        elif _matches(own, patterns) or not (verdicts is None or _is_invariant(own, verdicts)):
            kind = "ordinary"
        else:
            kind = "rotational"
        groups[kind]["params"].append(weight)
        groups[kind]["param_names"].append(own[0])
    return [{"name": name, **group} for name, group in groups.items() if group["params"]]


def _matches(names: Iterable[str], patterns: Collection[str]) -> bool:
    """Whether a pattern matches one of a parameter's names, or a module that it is in."""
    return any(
        fnmatchcase(name[:end], pattern)
        for name in names
        for end in [*(i for i, letter in enumerate(name) if letter == "."), None]
        for pattern in patterns
    )


def _is_invariant(names: Iterable[str], verdicts: dict[str, Verdict]) -> bool:
    """Whether a parameter's verdict, under whichever of its names, is scale-invariant."""
    found = [verdicts[name] for name in names if name in verdicts]
    if not found:
        raise ValueError(
            f"param_groups: scale_invariant has no verdict on {' = '.join(names)}; are they "
            "verdicts on another model?"
        )
    return any(verdict.scale_invariant is True for verdict in found)


def find_scale_invariant(
    model: nn.Module, loss: Callable[[nn.Module, Batch], Tensor], batches: Iterable[Batch]
) -> list[Verdict]:
    """Find out before a training which weights are scale-invariant.

    A copy of the model takes some training steps, which lead nowhere; the model itself, its
    statistics and torch's random numbers stay as they are. For as long as this takes there are
    three copies of the weights more in memory, and gradients.

    Args:
        model: In train mode, not wrapped in DDP and not sharded.
        loss: Called with the copy and a batch; returns the loss, a scalar.
        batches: Training batches, a data loader for example; of them 8 to 32 are taken.

    Returns:
        One verdict per parameter: ``scale_invariant`` (True, False, or None where there
        was no gradient) and ``reason``.

    Raises:
        ValueError: The model is in eval mode, where batch norms do not normalize; or there
            are fewer than 8 batches.

    Example::

        verdicts = find_scale_invariant(model, lambda m, b: loss(m(b[0]), b[1]), loader)
        optimizer = LionAR(param_groups(model, scale_invariant=verdicts), lr=1e-3, weight_decay=0.1)
    """
    if not model.training:
        raise ValueError("find_scale_invariant: the model is in eval mode; call model.train()")
    gpus = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=gpus), torch.enable_grad():
        tried = deepcopy(model)
        optimizer = LionA([p for p in tried.parameters() if p.requires_grad], TRIAL_LR, beta=0.0)
        observer = ScaleInvarianceObserver(tried, optimizer)
        for batch in batches:
            optimizer.zero_grad()
            loss(tried, batch).backward()
            optimizer.step()
            if observer.done:
                break
        observer.detach()
        if observer.steps < BATCHES:
            raise ValueError(
                f"find_scale_invariant: a verdict needs {BATCHES} batches, got {observer.steps}"
            )
        return observer.verdicts()
