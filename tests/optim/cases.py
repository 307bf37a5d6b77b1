"""Optimizers with all their options, and weights of every shape and layout to step with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from smd_hooks.optim import LionA, LionAR, RotationalAdamW, RotationalLion, RotationalSGD
from smd_hooks.optim.sphere_optimizer import SphereOptimizer

NO_WARMUP = {"beta": 0.98, "nesterov": True, "inverse_bias_correction": True}
"""The paper's recipe for LionAR."""


class Case(NamedTuple):
    """An optimizer and its options, lr and weight decay aside."""

    kind: type[SphereOptimizer]
    options: Mapping[str, Any] = MappingProxyType({})

    def build(
        self, params: Any, lr: Any = 1e-2, weight_decay: float = 0.1, **more: Any
    ) -> SphereOptimizer:
        make: Any = self.kind
        return make(params, lr, weight_decay=weight_decay, **{**self.options, **more})

    @property
    def per_neuron(self) -> bool:
        return self.options.get("per_neuron", True)


PLAIN = [Case(kind) for kind in (LionA, LionAR, RotationalSGD, RotationalAdamW, RotationalLion)]
TURNING = PLAIN[1:]
CASES = [
    *PLAIN,
    Case(LionA, NO_WARMUP),
    Case(LionAR, NO_WARMUP),
    Case(LionAR, {"matching": "net", "per_neuron": False, "schedule": "sqrt"}),
    Case(LionAR, {"angle": 0.03}),
    Case(RotationalSGD, {"per_neuron": False, "zero_mean": False, "momentum": 0.0}),
    Case(RotationalSGD, {"schedule": "linear", "update_norm_decay": 0.5}),
    Case(RotationalAdamW, {"schedule": "linear", "zero_mean": False, "betas": (0.8, 0.95)}),
    Case(RotationalAdamW, {"per_neuron": False, "eps": 1e-3, "angle": 0.1}),
    Case(RotationalLion, {"per_neuron": False, "betas": (0.95, 0.9)}),
    Case(RotationalLion, {"zero_mean": False, "betas": (0.9, 0.9)}),
]


def name_of(case: Case) -> str:
    options = ", ".join(f"{key}={value}" for key, value in case.options.items())
    return f"{case.kind.__name__}({options})"


def weight(
    shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype, scale: float = 1.0
) -> nn.Parameter:
    drawn = scale * torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
    return nn.Parameter(drawn.to(dtype))


def mixed_weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Return weights of all kinds: no two steps of code are needed by the same one."""
    generator = torch.Generator().manual_seed(1)

    def made(*shape: int, scale: float = 1.0) -> nn.Parameter:
        return weight(shape, generator, dtype, scale)

    shapes = [(), (5,), (1,), (1, 7), (12, 20), (1000, 30), (4, 2), (6, 1), (3, 1, 1, 1)]
    convs = [(16, 3, 3, 3), (6, 4, 1, 1), (3, 2, 5, 5), (3, 3, 7, 7), (8, 1, 5, 5), (2, 3, 2, 2, 2)]
    weights = [made(*shape) for shape in (*shapes, *convs, (0, 3), (3, 0))]
    weights += [made(4, 9, scale=0.0), made(20, 9, scale=1e15), made(20, 9, scale=1e-15)]
    some_zero = made(5, 9)
    with torch.no_grad():
        some_zero[2] = 0
    channels_last = made(8, 4, 3, 3).detach().to(memory_format=torch.channels_last)
    transposed, gapped = made(7, 9).detach().t(), made(6, 10).detach()[:, ::2]
    return [*weights, some_zero, *map(nn.Parameter, (channels_last, transposed, gapped))]


class Gradients:
    """White gradients, the same for every list of weights of the same shapes."""

    def __init__(self, seed: int = 3) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def give(self, *lists: Sequence[Tensor], absent: Sequence[int] = ()) -> None:
        """Give each weight a new gradient of its own scale; those that are absent get none."""
        for place, weights in enumerate(zip(*lists, strict=True)):
            first = weights[0]
            drawn = torch.randn(first.shape, generator=self._generator, dtype=torch.float64)
            size = float(first.detach().double().abs().max()) if first.numel() else 1.0
            for each in weights:
                each.grad = (
                    None if place in absent else (drawn * (size or 1.0)).float().to(each.dtype)
                )


def distance(a: Tensor, b: Tensor) -> float:
    """‖a − b‖/‖b‖."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-300))


def norms(weight: Tensor, per_neuron: bool) -> Tensor:
    """Norms of a weight's units in float64, shape (units,)."""
    w = weight.detach().double()
    return w.flatten(1).norm(dim=1) if per_neuron else w.norm().reshape(1)


def made(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return weight(shape, torch.Generator().manual_seed(seed), dtype)


def stepped(
    case: Case, weights: list[nn.Parameter], steps: int = 3, **more: Any
) -> SphereOptimizer:
    """Step some weights with white gradients; return the optimizer."""
    optimizer = case.build(weights, **more)
    gradients = Gradients()
    for _ in range(steps):
        gradients.give(weights)
        optimizer.step()
    return optimizer


# ------------------------------------------------------------------------- generated ones

SHAPES = st.lists(
    st.one_of(
        st.just(()),
        st.tuples(st.integers(0, 6)),
        st.tuples(st.integers(1, 12), st.integers(0, 24)),
        st.tuples(st.integers(1, 8), st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)),
    ),
    min_size=1,
    max_size=5,
)
BETAS = st.floats(0.05, 0.995)
_BOOL = st.booleans()
_SPHERE = {
    "per_neuron": _BOOL,
    "schedule": st.sampled_from(["linear", "sqrt"]),
    "angle": st.one_of(st.none(), st.floats(1e-4, 0.1)),
}
_AVERAGED = {**_SPHERE, "zero_mean": _BOOL, "update_norm_decay": st.floats(0.0, 0.99)}
_SIGN = {"beta": BETAS, "nesterov": _BOOL, "inverse_bias_correction": _BOOL}
_OPTIONS: dict[type[SphereOptimizer], dict[str, st.SearchStrategy[Any]]] = {
    LionA: _SIGN,
    LionAR: {**_SIGN, **_SPHERE, "matching": st.sampled_from(["adamw", "net"])},
    RotationalSGD: {**_AVERAGED, "momentum": st.floats(0, 0.99)},
    RotationalAdamW: {**_AVERAGED, "betas": st.tuples(BETAS, BETAS)},
    RotationalLion: {**_AVERAGED, "betas": st.tuples(BETAS, BETAS)},
}
GENERATED = st.sampled_from(list(_OPTIONS)).flatmap(
    lambda kind: st.builds(Case, st.just(kind), st.fixed_dictionaries({}, optional=_OPTIONS[kind]))
)
"""Any optimizer with any options."""
LAYOUTS = st.sampled_from(["contiguous", "channels_last", "transposed", "gapped"])


def laid_out(weight: Tensor, layout: str) -> nn.Parameter:
    """Return the same values in another order of memory."""
    w = weight.detach()
    if layout == "channels_last" and w.ndim == 4:
        w = w.to(memory_format=torch.channels_last)
    if layout == "transposed" and w.ndim >= 2:
        w = w.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "gapped" and w.ndim >= 1:
        w = w.repeat_interleave(2, -1)[..., ::2]
    return nn.Parameter(w)
