"""What is multiplied together with a scale-invariant weight, so that nothing else changes.

As powers of the weight's factor c, since gradients go as 1/‖w‖:

| what                                                          | power |
|---------------------------------------------------------------|-------|
| the weight, its averaged copy (EMA), the norm's running mean  |  1    |
| the norm's running variance                                   |  2    |
| momentum                                                      | −1    |
| running mean of squared gradients (Adam)                      | −2    |

Source: derived.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .sharding import local


def rescale(tensors: Sequence[Tensor], powers: Sequence[int], factors: Sequence[float]) -> None:
    """Multiply each tensor in place by its factor to its power, in one pass over all.

    Args:
        tensors: Of any shape; of sharded ones the process's own part.
        powers: One for each.
        factors: One for each, positive.
    """
    scalars = [factor**power for factor, power in zip(factors, powers, strict=True)]
    if scalars:
        torch._foreach_mul_([local(tensor) for tensor in tensors], scalars)


def statistics_of(owner: nn.Module, norm: nn.Module) -> list[tuple[Tensor, int]]:
    """Return the running statistics behind a weight that go with it, with their powers.

    There are none where the weight has a bias: the mean is not proportional to the weight then.

    Args:
        owner: The module that holds the weight (and perhaps a bias).
        norm: The norm that follows.
    """
    buffers = dict(norm.named_buffers(recurse=False))
    if getattr(owner, "bias", None) is not None or "running_mean" not in buffers:
        return []
    return [(buffers["running_mean"], 1), (buffers["running_var"], 2)]


@dataclass(eq=False)
class Followed:
    """A scale-invariant weight and what is known about how far it may be rescaled.

    Attributes:
        name: Its name in the model.
        parameter: The weight.
        group: Number of its parameter group.
        norms: The norms that follow.
        along: Tensors that go with it, and their powers, but for the optimizer's.
        smallest: Product of factors below which eps would matter; 0 where not known.
        looked_at: Product of factors that was asked for when that was last found out.
    """

    name: str
    parameter: Tensor
    group: int
    norms: list[nn.Module]
    along: list[tuple[Tensor, int]] = field(default_factory=list)
    smallest: float = 0.0
    looked_at: float = math.inf


def find_followed(
    optimizer: Optimizer,
    model: nn.Module,
    weights: Mapping[str, Sequence[str]],
    copies: Sequence[nn.Module],
) -> list[Followed]:
    """Return the weights that the optimizer holds, each with all that goes with it.

    Running statistics go along where a norm follows one weight alone.

    Args:
        optimizer: The optimizer.
        model: The model, unwrapped.
        weights: Names of weights, and of each one's norms.
        copies: Models of the same form whose weights are averages of this one's.
    """
    groups = enumerate(optimizer.param_groups)
    group_of = {id(p): i for i, group in groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    averages = [dict(each.named_parameters()) for each in copies]
    feeds = Counter(norm for norms in weights.values() for norm in norms)
    found = []
    for name, norms in weights.items():
        group = group_of.get(id(parameters.get(name)))
        if group is None:
            continue
        weight = Followed(name, parameters[name], group, list(map(model.get_submodule, norms)))
        weight.along += [(average[name], 1) for average in averages]
        if len(norms) == 1 and feeds[norms[0]] == 1:
            for each in (model, *copies):
                owner = each.get_submodule(name.rpartition(".")[0])
                weight.along += statistics_of(owner, each.get_submodule(norms[0]))
        found.append(weight)
    return found
