"""How far one optimizer step moves a layer's outputs on the batch it came from.

The relative representation change RRC = ‖XΔWᵀ‖/‖XWᵀ‖ of Kosson et al., *Analyzing &
Reducing the Need for Learning Rate Warmup in GPT Training*, §6. Its relation to the
angular update and the gradient's noise is in :mod:`smd_hooks.theory.representation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from .module_hook import ModuleHook
from .never_measured import NeverMeasured
from .stepping import AroundStep

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
"""Layers with a linear response to their weight."""

EXAMPLES = 8
"""Examples of a batch that a conv is measured on at least, where the batch has them."""
POSITIONS = 1024
"""Positions (rows of a linear layer) up to which more examples are taken."""


def match_layers(
    who: str,
    patterns: str | Iterable[str],
    names: Iterable[str],
    what: str = "layer with a matrix that the optimizer trains",
) -> list[str]:
    """Names that one of the shell-style patterns matches, in the order of ``names``.

    Args:
        who: Whose argument ``layers`` this is, for the message.
        patterns: Module names or patterns such as ``'*.attn.*'``; ``*`` crosses dots.
        names: The layers there are.
        what: What they are, for the message.

    Raises:
        ValueError: There is no pattern, or one that matches nothing.
    """
    patterns, names = [patterns] if isinstance(patterns, str) else list(patterns), list(names)
    there = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if not patterns:
        raise ValueError(f"{who}: layers is empty; name some of the model's layers: {there}")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"{who}: layers={pattern!r} matches no {what}; there are: {there or 'none'}"
            )
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]


def refuse_sharded(who: str, weights: dict[str, Tensor]) -> None:
    """Raise ValueError if a weight is a DTensor: one process holds only a part of it."""
    for name, weight in weights.items():
        if hasattr(weight, "full_tensor"):
            raise ValueError(f"{who}: {name} is sharded (FSDP2, DTensor), which it cannot measure")


@dataclass
class StepCount:
    """Counts optimizer steps without those that a gradient scaler skipped.

    Fused optimizers step also then, and only the device knows that nothing moved; so it
    keeps that count, and nobody waits for it before :meth:`step` is asked for.
    """

    attempts: int
    skipped: Tensor | None = None

    def advance(self, optimizer: Optimizer) -> None:
        """Count the step that the optimizer is taking."""
        self.attempts += 1
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None:
            self.skipped = found_inf + (0 if self.skipped is None else self.skipped)

    def step(self) -> int:
        """Steps taken so far; reads from the device where there is a scaler."""
        return self.attempts - (0 if self.skipped is None else int(self.skipped.item()))


def response(layer: Layer, inputs: Tensor, weight: Tensor) -> Tensor:
    """What the layer would answer with this weight and no bias, in the weight's dtype."""
    with torch.autocast(inputs.device.type, enabled=False):
        if isinstance(layer, nn.Linear):
            return F.linear(inputs.to(weight.dtype), weight)
        # the layer's own call knows its stride, padding mode, dilation and groups
        return layer._conv_forward(inputs.to(weight.dtype), weight, None)


@torch.no_grad()
def representation_change(layer: Layer, inputs: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """RRC of a layer whose weight went from ``before`` to ``after``; its bias is left out.

    Computed in float32 (as exactly as the device's float32 products are), in float64
    for a float64 weight.

    Args:
        layer: The layer; a subclass is taken to use its weight as its base class does.
        inputs: X, a batch of the layer's inputs.
        before: W, the layer's weight before the step.
        after: W + ΔW, same shape.

    Returns:
        ‖XΔWᵀ‖/‖XWᵀ‖ over all examples, positions and outputs, 0-d float64 on the
        weight's device; NaN where XWᵀ is zero.
    """
    exact = torch.promote_types(before.dtype, torch.float32)
    before, after = before.detach().to(exact), after.detach().to(exact)
    moved, at_rest = (
        torch.linalg.vector_norm(response(layer, inputs, weight), dtype=torch.float64)
        for weight in (after - before, before)
    )
    return torch.where(at_rest > 0, moved / at_rest, torch.nan)


def some_examples(layer: Layer, inputs: Tensor) -> Tensor:
    """Copy examples spread evenly over a batch: enough for the norms, few enough to keep.

    Args:
        layer: The layer they go into.
        inputs: (…, C) for a linear layer, where each row is an example; (N, C, …) or
            (C, …) for a conv.

    Returns:
        At most max(:data:`EXAMPLES`, :data:`POSITIONS` / positions per example) of them.
    """
    inputs = inputs.detach()
    period = 1
    if isinstance(layer, nn.Linear):
        period = math.prod(inputs.shape[1:-1])
        inputs = inputs.reshape(-1, inputs.shape[-1])
    elif inputs.ndim < layer.weight.ndim:
        inputs = inputs.unsqueeze(0)
    positions = max(1, math.prod(inputs.shape[2:]))
    stride = max(1, math.ceil(len(inputs) / max(EXAMPLES, POSITIONS // positions)))
    # else it meets the same positions in every sequence, and first tokens are not like others
    while math.gcd(stride, period) > 1:
        stride += 1
    return inputs[::stride].clone()


@dataclass
class _Sample:
    """One measured step; values stay on their device until drained."""

    count: StepCount
    parameters: list[str]
    values: Tensor
    skipped: Tensor | None


class RepresentationProbe:
    """Measures the relative representation change of named layers at optimizer steps.

    On a measured step it keeps a few examples of each layer's input and a copy of its
    weight, and after the step asks the layer for its response to the change. It changes
    nothing, and reads nothing back from the device until it is drained.

    Inputs are those of the layer's last call in train mode before the step: with
    gradient accumulation of the last micro-batch, with a head shared between feature
    levels of the last level, with data parallelism of this process's part of the batch.
    A layer that was not called, or has no gradient, leaves no row; so does one whose
    weight another module uses without calling it (``out_proj`` of
    ``nn.MultiheadAttention``). Draining warns of layers that were never measured.
    Embeddings have no response to compare, and a head that borrows an embedding's weight
    (GPT-2's) is no module: neither can be named.

    Args:
        optimizer: Any ``torch.optim.Optimizer``.
        model: The model it trains, not wrapped (no DDP); before ``torch.compile`` runs
            for the first time, where it is compiled (each layer then breaks its graph).
        layers: Names of Linear or Conv modules, or shell-style patterns of them.
        interval: Optimizer steps between samples.
        first_step: Number of optimizer steps taken before this run was resumed.

    Raises:
        ValueError: ``interval`` < 1; a pattern matches no Linear or Conv whose weight
            the optimizer holds; or a weight is sharded.

    Example::

        probe = RepresentationProbe(optimizer, model, ["layer4.*", "fc"], interval=100)
        ...  # train
        probe.drain()["representation_change"]
        probe.detach()
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        layers: str | Iterable[str],
        interval: int,
        first_step: int = 0,
    ) -> None:
        who = type(self).__name__
        if interval < 1:
            raise ValueError(f"{who}: interval must be 1 or more, got {interval}")
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        there = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, Layer) and id(module.weight) in held
        }
        names = match_layers(who, layers, there, "Linear or Conv that the optimizer trains")
        refuse_sharded(who, {name: there[name].weight for name in names})
        self.interval = interval
        self._count = StepCount(first_step)
        self._parameters = {there[name]: f"{name}.weight" if name else "weight" for name in names}
        self._inputs: dict[Layer, Tensor] = {}
        self._before: dict[Layer, Tensor] = {}
        self._samples: list[_Sample] = []
        self._never = NeverMeasured(
            who, "have not been called in train mode, or have had no gradient,"
        )
        keep = ModuleHook(self._keep_input)
        self._handles: list[Any] = [
            *(
                layer.register_forward_pre_hook(keep, with_kwargs=True)
                for layer in self._parameters
            ),
            AroundStep(optimizer, self._before_step, self._after_step),
        ]

    def detach(self) -> None:
        """Remove the hooks; what was measured stays readable."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._inputs, self._before = {}, {}

    @property
    def step(self) -> int:
        """Optimizer steps taken so far."""
        return self._count.step()

    def __len__(self) -> int:
        """Number of samples that wait to be drained."""
        return len(self._samples)

    def _keep_input(self, layer: Any, args: Any, kwargs: Any) -> None:
        if layer.training and self._count.attempts % self.interval == 0:
            self._inputs[layer] = some_examples(layer, args[0] if args else kwargs["input"])

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._before = {
            layer: layer.weight.detach().clone()
            for layer in self._parameters
            if layer in self._inputs and layer.weight.grad is not None
        }

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._count.attempts % self.interval == 0:
            for layer, name in self._parameters.items():
                self._never.count(name, measured=layer in self._before)
        if self._before:
            values = [
                representation_change(layer, self._inputs[layer], before, layer.weight)
                for layer, before in self._before.items()
            ]
            parameters = [self._parameters[layer] for layer in self._before]
            skipped = getattr(optimizer, "found_inf", None)
            self._samples.append(
                _Sample(
                    replace(self._count),
                    parameters,
                    torch.stack(values),
                    skipped=None if skipped is None else skipped.clone(),
                )
            )
        self._inputs, self._before = {}, {}
        self._count.advance(optimizer)

    def drain(self) -> dict[str, np.ndarray]:
        """Bring the waiting samples to the host and forget them.

        Steps that a gradient scaler skipped are left out.

        Returns:
            Columns of equal length, one entry per step and layer: ``step``,
            ``parameter`` (name of the layer's weight) and ``representation_change``.
        """
        self._never.say()
        samples, self._samples = self._samples, []
        samples = [s for s in samples if s.skipped is None or not s.skipped.item()]
        values = [s.values for s in samples]
        return {
            "step": np.repeat(
                np.array([s.count.step() for s in samples], np.int64),
                [len(s.parameters) for s in samples],
            ),
            "parameter": np.array([p for s in samples for p in s.parameters], np.str_),
            "representation_change": torch.cat(values).cpu().numpy() if values else np.empty(0),
        }
