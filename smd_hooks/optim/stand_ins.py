"""Zeros that an optimizer steps in the place of weights, so that its direction can be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..measure.sharding import local


class StandIns:
    """Exchanges weights of an optimizer for stand-ins, for the time of a step.

    A stand-in has the weight's gradient and state. The weight itself is touched by nobody:
    should the step fail, it is as it was, and :meth:`put_back` mends the optimizer.

    Args:
        optimizer: The optimizer.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._kept: dict[Tensor, Tensor] = {}
        self._exchanged: list[tuple[dict[str, Any], list[Tensor]]] = []

    def __getitem__(self, parameter: Tensor) -> Tensor:
        """Return a weight's stand-in, with what the last step left in it."""
        return self._kept[parameter]

    @torch.no_grad()
    def exchange(self, free: Mapping[Tensor, Tensor | None]) -> None:
        """Put stand-ins in the place of weights.

        Args:
            free: By weight, which of its units (all, or rows) are to begin at the weight
                itself, boolean of shape (units,); None where all begin at zero.
        """
        self.put_back()
        there = {parameter: self._like(parameter) for parameter in free}
        zero = [local(there[parameter]) for parameter, flags in free.items() if flags is None]
        if zero:
            torch._foreach_zero_(zero)
        for parameter, flags in free.items():
            if flags is not None:
                weight = local(parameter)
                keep = flags.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1))
                torch.mul(weight, keep, out=local(there[parameter]))
        state = self._optimizer.state
        for parameter, stand_in in there.items():
            stand_in.grad = parameter.grad
            if parameter in state:
                state[stand_in] = state[parameter]
        for group in self._optimizer.param_groups:
            self._exchanged.append((group, group["params"]))
            group["params"] = [there.get(p, p) for p in group["params"]]

    def put_back(self) -> None:
        """Put the weights back in their places; nothing happens where they are there."""
        state = self._optimizer.state
        for group, parameters in self._exchanged:
            for parameter, stand_in in zip(parameters, group["params"], strict=True):
                if stand_in is not parameter:
                    stand_in.grad = None
                    if stand_in in state:
                        state[parameter] = state.pop(stand_in)
            group["params"] = parameters
        self._exchanged = []

    def keep(self, parameters: Iterable[Tensor]) -> None:
        """Forget the stand-ins of all other weights."""
        self._kept = {p: self._kept[p] for p in parameters if p in self._kept}

    def _like(self, parameter: Tensor) -> Tensor:
        kept = self._kept.get(parameter)
        kind = (parameter.shape, parameter.stride(), parameter.dtype, parameter.device)
        if kept is None or (kept.shape, kept.stride(), kept.dtype, kept.device) != kind:
            self._kept[parameter] = kept = torch.zeros_like(parameter.detach())
        return kept
