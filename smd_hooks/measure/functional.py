"""Does the output change when a weight is doubled or halved? The judge of ties.

One forward pass of training is run again, with the weight multiplied by powers of two.
Those are exact in floating point, and so is every linear operation's and norm's answer
to them, so that in fp32 a scale-invariant weight moves the output by its norm's eps
alone and no float64 copy of the model is made (theory asks for fp64 because arbitrary
factors round).

Source: Wan et al., *Spherical Motion Dynamics*, §2 (scale invariance); the test derived.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .autograd_graph import tensors

OUTPUT_LIMIT = 1e-4
"""Relative change of the output's norm below which a weight counts as scale-invariant."""
LOSSES_LIMIT = 1e-2
"""The same for the largest change among several losses: a detector's proposals also move."""
CLEARLY = 10
"""A turned weight must move the output this many times as much as a scaled one."""


@dataclass(frozen=True)
class ForwardCall:
    """One training call of a module, kept so that it can be made again.

    Attributes:
        module: What was called.
        args: Its arguments, without their autograd history.
        kwargs: The same.
        modes: The ``training`` flag of each of its modules then.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    modes: list[tuple[nn.Module, bool]] = field(repr=False)

    @classmethod
    def of(cls, module: nn.Module, args: Any, kwargs: Any) -> ForwardCall:
        """Remember a call; the tensors are shared, not copied."""
        module = getattr(module, "_orig_mod", module)  # a compiled call would compile again
        modes = [(m, m.training) for m in module.modules()]
        return cls(module, _detached(tuple(args)), _detached(dict(kwargs)), modes)


@dataclass(frozen=True)
class ScaleResponse:
    """What multiplying a weight does to the output.

    Attributes:
        change: Relative change under ×2 and ×½, the larger one.
        influence: The same under ×(−1), which scale invariance allows: it shows that
            the output depends on the weight at all.
        limit: What ``change`` is held against.
    """

    change: float
    influence: float
    limit: float

    @property
    def invariant(self) -> bool | None:
        """Whether the weight is scale-invariant; None if the output hardly depends on it."""
        if self.change >= self.limit:
            return False
        return True if self.influence > max(self.limit, CLEARLY * self.change) else None


def scale_response(call: ForwardCall, weight: Tensor) -> ScaleResponse:
    """Run a call again with a weight ×1, ×2, ×½ and ×(−1).

    Modes and random numbers are as in the call; autocast is off, and what
    ``torch.compile`` has compiled runs uncompiled. The module's parameters, buffers and
    modes and the random states are afterwards as they were, bit by bit. What it keeps
    elsewhere (a Python counter, say) is not put back.

    Args:
        call: A training call of a module that uses the weight.
        weight: The parameter; it is multiplied in place.

    Raises:
        ValueError: The output has no floating-point tensor; or the forward changes
            parameters (of a momentum encoder, say), so that the calls do not compare.
        Exception: Whatever the module raises when it is called again.
    """
    kept = weight.detach().clone()
    with ExitStack() as stack:
        stack.enter_context(_in_modes(call))
        stack.enter_context(torch.no_grad())
        if hasattr(torch.compiler, "set_stance"):  # torch 2.6; MMEngine compiles methods
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        for device_type in {"cpu", weight.device.type}:
            stack.enter_context(torch.autocast(device_type, enabled=False))
        # through .data: a backward that is still to come must not see a new version
        stack.callback(weight.data.copy_, kept)
        answers = []
        for factor in (1.0, 2.0, 0.5, -1.0):
            with _values_kept(call.module) as kept_parameters:
                weight.data.copy_(kept * factor)
                with _same_random_numbers(weight.device):
                    args, kwargs = copy.deepcopy((call.args, call.kwargs))
                    answers.append(_parts(call.module(*args, **kwargs)))
                if factor == 1 and not all(torch.equal(p, v) for p, v in kept_parameters):
                    raise ValueError("the forward changes parameters")
    plain, doubled, halved, turned = answers
    return ScaleResponse(
        change=max(_relative_change(plain, doubled), _relative_change(plain, halved)),
        influence=_relative_change(plain, turned),
        limit=LOSSES_LIMIT if len(plain) > 1 else OUTPUT_LIMIT,
    )


@contextmanager
def _in_modes(call: ForwardCall) -> Iterator[None]:
    """Put the module into the call's modes; afterwards put back its own."""
    modes = [(m, m.training) for m in call.module.modules()]
    for module, training in call.modes:
        module.training = training
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _values_kept(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Afterwards put back parameters and buffers; yields parameters with their values."""
    slots: list[tuple[dict[str, Any], str, Tensor, Tensor, Tensor]] = [
        (slot, name, tensor, tensor.data, tensor.detach().clone())
        for m in module.modules()
        for slot in (m._parameters, m._buffers)
        for name, tensor in slot.items()
        if tensor is not None
    ]
    try:
        yield [(t, value) for _, _, t, _, value in slots if isinstance(t, nn.Parameter)]
    finally:
        # a forward may write into a tensor, into its .data, or put another in its place
        for slot, name, tensor, data, value in slots:
            slot[name] = tensor
            if tensor.data_ptr() != data.data_ptr():
                tensor.data = data
            data.copy_(value)


@contextmanager
def _same_random_numbers(device: torch.device) -> Iterator[None]:
    """Let every entry draw what the first one drew, and the training loop not notice."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  (models use the global one)
    on_cpu = device.type == "cpu"
    with torch.random.fork_rng(
        [] if on_cpu else [device], device_type="cuda" if on_cpu else device.type
    ):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: _detached(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_detached(item) for item in value)
    return value


def _parts(outputs: Any) -> list[Tensor]:
    """One vector per loss of a mapping, else a single one of all outputs; float64."""
    entries = [outputs]
    if isinstance(outputs, Mapping):
        losses = [value for key, value in outputs.items() if "loss" in str(key)]
        entries = losses or list(outputs.values())
    found = [[t for t in tensors(entry) if t.is_floating_point()] for entry in entries]
    vectors = [torch.cat([t.double().flatten() for t in entry]) for entry in found if entry]
    if not vectors:
        raise ValueError("the output has no floating-point tensor")
    return vectors


def _relative_change(plain: list[Tensor], other: list[Tensor]) -> float:
    return max(_relative(a, b) for a, b in zip(plain, other, strict=True))


def _relative(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return math.inf
    difference, size = float((a - b).norm()), float(a.norm())
    if not math.isfinite(difference):
        return math.inf
    return 0.0 if difference == 0 else difference / size if size else math.inf
