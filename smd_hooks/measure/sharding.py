"""Weights of which a process holds only a part: what can be summed, and what is refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer


def _dtensor_type() -> type | None:
    if not dist.is_available():
        return None
    from torch.distributed.tensor import DTensor

    return DTensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether the tensor is a DTensor, as FSDP2's ``fully_shard`` makes them."""
    kind = _dtensor_type() if dist.is_available() and dist.is_initialized() else None
    return kind is not None and isinstance(tensor, kind)


def local(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; of a sharded one on every process, which is a collective."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def sum_over_shards(sums: Tensor, weights: Sequence[Tensor]) -> None:
    """Add up, in place, what the processes found of their shards.

    A collective, one for each way in which weights are sharded; nothing where none is.

    Args:
        sums: Sums over the local parts, one row for each weight.
        weights: The weights they belong to, in the same order on every process.
    """
    alike: dict[tuple[Any, tuple[int, ...]], list[int]] = defaultdict(list)
    for i, weight in enumerate(weights):
        if is_sharded(weight):
            spec: Any = weight
            dimensions = tuple(d for d, p in enumerate(spec.placements) if p.is_shard())
            alike[spec.device_mesh, dimensions].append(i)
    for (mesh, dimensions), members in alike.items():
        total = sums[members]
        for dimension in dimensions:
            dist.all_reduce(total, group=mesh.get_group(dimension))
        sums[members] = total


def refuse_what_cannot_be_measured(optimizer: Optimizer, weights: Sequence[Tensor]) -> None:
    """Refuse optimizers and wrappers that hide the step or its weights.

    Raises:
        RuntimeError: One line: what it is, and what to use instead.
    """
    kind = type(optimizer)
    if not isinstance(optimizer, Optimizer) or kind.__module__.split(".")[0] == "deepspeed":
        raise RuntimeError(
            f"StepProbe: {kind.__name__} does not step through torch.optim.Optimizer's hooks; "
            "train with DDP or FSDP2 (fully_shard) to measure"
        )
    if any(base.__name__ == "ZeroRedundancyOptimizer" for base in kind.__mro__):
        raise RuntimeError(
            "StepProbe: ZeroRedundancyOptimizer keeps most weights' momentum on other processes; "
            "use the optimizer inside it with DDP, or FSDP2 (fully_shard)"
        )
    if isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        raise RuntimeError(
            f"StepProbe: {kind.__name__} wraps another optimizer; give the inner one "
            "(its .optimizer)"
        )
    if any(type(w).__name__ == "FlatParameter" or hasattr(w, "_fsdp_flattened") for w in weights):
        raise RuntimeError(
            "StepProbe: FullyShardedDataParallel flattens weights into pieces without a shape; "
            "use FSDP2 (torch.distributed.fsdp.fully_shard) or DDP"
        )
