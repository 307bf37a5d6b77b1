"""Whether a step's gradient follows the momentum that it meets, or opposes it.

Kosson et al., *Analyzing & Reducing the Need for Learning Rate Warmup in GPT Training*, §6:
early gradients agree with those before them, later ones mostly oppose the momentum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .momentum import momentum_of


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between two tensors of one shape, seen as vectors.

    Returns:
        0-d float64, summed in float64; NaN where either is zero.
    """
    norms = [torch.linalg.vector_norm(each, dtype=torch.float64) for each in (a, b)]
    product = (a * b).sum(dtype=torch.float64)
    length = norms[0] * norms[1]
    return torch.where(length > 0, product / length, torch.nan)


def momentum_alignments(optimizer: Optimizer, parameters: Iterable[Tensor]) -> Tensor:
    """cos(g_t, m_{t−1}) of parameters that are about to be stepped.

    Args:
        optimizer: Their optimizer, just before its step: ``.grad`` is what it will use, and
            its buffers are still those of the step before.
        parameters: Some of its parameters, none of them sharded.

    Returns:
        Float64 of shape (parameters,), on the first one's device. NaN where there is no
        gradient or no momentum: before the first step, for rules without one, and for
        optimizers that :func:`~smd_hooks.measure.momentum.momentum_of` does not know. Where
        weight decay goes through the momentum (``torch.optim.SGD``), m contains it.
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    found: list[Tensor] = []
    for parameter in parameters:
        buffer = _momentum(optimizer, groups[id(parameter)], parameter)
        gradient = parameter.grad
        if gradient is None or gradient.is_sparse or buffer is None:
            nothing = torch.full((), torch.nan, dtype=torch.float64, device=parameter.device)
            found.append(nothing)
        else:
            found.append(cosine(gradient.detach(), buffer))
    return torch.stack([value.to(found[0].device) for value in found])


def _momentum(optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor) -> Tensor | None:
    momentum = momentum_of(optimizer, group)
    # β = 0 leaves the last gradient in the buffer, which no step then looks at
    if momentum is None or (not torch.is_tensor(momentum.keep) and momentum.keep == 0):
        return None
    buffer = optimizer.state.get(parameter, {}).get(momentum.key)
    return buffer if torch.is_tensor(buffer) else None
