"""Which of an optimizer's parameters step together, as which units, and on which sphere."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..measure.precision import rounding_angle
from ..measure.sharding import is_sharded, local
from .sphere import centring_factors
from .units import Units, in_layout_of, is_dense

RESOLVED = 2e-3
"""Angle in radians from which bf16 weights take a step without losing much of it."""


@dataclass(frozen=True)
class Member:
    """One parameter of a batch.

    Attributes:
        parameter: As the optimizer holds it.
        group: Index of its parameter group.
        turns: Whether it is rotational.
        per_row: Whether its units are its rows (first dimension); else it is one unit.
    """

    parameter: Tensor
    group: int
    turns: bool
    per_row: bool

    @property
    def shards_units(self) -> tuple[int, ...]:
        """Mesh dimensions over which its units (not just rows) are cut to pieces."""
        if not is_sharded(self.parameter):
            return ()
        placements = self.parameter.placements  # type: ignore[attr-defined]
        return tuple(
            d
            for d, p in enumerate(placements)
            if p.is_shard() and not (self.per_row and p.dim == 0)
        )


@dataclass(frozen=True)
class Members:
    """Parameters of one device and dtype that step together, and what never changes of them."""

    members: tuple[Member, ...]

    @cached_property
    def parameters(self) -> list[Tensor]:
        """One tensor per member, as the optimizer holds it."""
        return [member.parameter for member in self.members]

    @cached_property
    def sharded(self) -> bool:
        """Whether some are DTensors, of which this process holds a part."""
        return any(map(is_sharded, self.parameters))

    def local(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return what this process holds of the members' tensors."""
        return list(map(local, tensors)) if self.sharded else list(tensors)

    @cached_property
    def units(self) -> Units:
        """How the local parts of the parameters fall into units."""
        shapes = [(local(m.parameter).shape, m.per_row) for m in self.members]
        counts = [shape[0] if per_row else 1 for shape, per_row in shapes]
        lengths = [
            math.prod(shape[1:]) if per_row else math.prod(shape) for shape, per_row in shapes
        ]
        return Units(tuple(counts), tuple(lengths), local(self.parameters[0]).device)

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """Indices of the parameter groups that occur, in order."""
        return tuple(dict.fromkeys(member.group for member in self.members))

    @cached_property
    def group_of(self) -> Tensor:
        """Place of each member's group in :attr:`groups`, shape (members,)."""
        places = {group: place for place, group in enumerate(self.groups)}
        return torch.tensor([places[m.group] for m in self.members]).to(self.units.device)

    @cached_property
    def turns(self) -> Tensor:
        """Whether each unit's parameter is rotational, shape (units,)."""
        flags = torch.tensor([member.turns for member in self.members])
        return self.units.spread(flags.to(self.units.device))

    @cached_property
    def turning(self) -> list[int]:
        """Places of the rotational members."""
        return [i for i, member in enumerate(self.members) if member.turns]

    @cached_property
    def elements(self) -> Tensor:
        """Number of elements of each unit, all its shards together, float64 of shape (units,)."""
        whole = [
            m.parameter.numel() // (m.parameter.shape[0] if m.per_row else 1) for m in self.members
        ]
        return self.units.spread(torch.tensor(whole, dtype=torch.float64).to(self.units.device))

    @cached_property
    def dense(self) -> list[bool]:
        """Whether each member's memory can be walked unit by unit."""
        return [is_dense(local(m.parameter), m.per_row) for m in self.members]

    @cached_property
    def _cut_alike(self) -> dict[tuple[Any, tuple[int, ...]], Tensor]:
        """Units that are cut over the same mesh dimensions."""
        numbers = torch.arange(len(self.units)).split(self.units.counts)
        alike: dict[tuple[Any, tuple[int, ...]], list[Tensor]] = {}
        for member, own in zip(self.members, numbers, strict=True):
            if member.shards_units:
                mesh = member.parameter.device_mesh  # type: ignore[attr-defined]
                alike.setdefault((mesh, member.shards_units), []).append(own)
        return {key: torch.cat(own).to(self.units.device) for key, own in alike.items()}

    def add_up_shards(self, sums: Tensor) -> None:
        """Add up, in place, what processes hold of the same units: a collective if any are cut."""
        for (mesh, dimensions), own in self._cut_alike.items():
            total = sums[own]
            for dimension in dimensions:
                dist.all_reduce(total, group=mesh.get_group(dimension))
            sums[own] = total

    def weights(self) -> list[Tensor]:
        """Return the local weights, dense; those that are not so in a copy."""
        pairs = zip(self.local(self.parameters), self.dense, strict=True)
        return [p if dense else p.contiguous() for p, dense in pairs]

    def gradients(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Return the local gradients, laid out like these weights."""
        gradients = self.local([p.grad for p in self.parameters if p.grad is not None])
        return list(map(in_layout_of, gradients, weights))

    def put_back(self, weights: Sequence[Tensor]) -> None:
        """Write copies of weights that are not dense back into them."""
        if not all(self.dense):
            for parameter, weight in zip(self.local(self.parameters), weights, strict=True):
                if parameter.data_ptr() != weight.data_ptr():
                    parameter.copy_(weight)


def anchor(member: Member, zero_mean: bool) -> Tensor:
    """Find the radius of a weight's sphere, once and for all, and take its means off if wished.

    Args:
        member: The weight; changed in place where its means are taken off.
        zero_mean: Whether each unit's mean becomes zero; its norm stays.

    Returns:
        Norm of each unit, float32 of shape (units,); a DTensor where the weight is one.
    """
    one = Members((member,))
    (weight,) = weights = one.weights()
    (rows,) = one.units.rows(weights)
    w = rows.double()
    sums = torch.zeros(len(rows), 5, dtype=torch.float64, device=rows.device)
    sums[:, 0], sums[:, 3] = (w * w).sum(1), w.sum(1)
    one.add_up_shards(sums)
    if zero_mean:
        stretch, _, shift = centring_factors(sums, one.elements).split(1, dim=1)
        rows.copy_(stretch * w + shift)
        one.put_back([weight])
    return as_units_of(member, sums[:, 0].sqrt().float())


def as_units_of(member: Member, values: Tensor) -> Tensor:
    """Make what has one entry per local unit a DTensor where the parameter is one."""
    if not is_sharded(member.parameter):
        return values
    from torch.distributed.tensor import DTensor, Replicate

    parameter: Any = member.parameter
    placements = [
        p if p.is_shard() and member.per_row and p.dim == 0 else Replicate()
        for p in parameter.placements
    ]
    count = parameter.shape[0] if member.per_row else 1
    return DTensor.from_local(
        values, parameter.device_mesh, placements, shape=torch.Size([count]), stride=(1,)
    )


def warn_of_rounding(who: str, parameter: Tensor, angle: Any) -> bool:
    """Warn that steps drown in the rounding of bf16 or fp16 weights, if they may.

    Args:
        who: The optimizer's name.
        parameter: A rotational weight.
        angle: Radians per step; a tensor is not looked at, to spare a wait for the device.

    Returns:
        Whether it warned.
    """
    if torch.finfo(parameter.dtype).bits >= 32:
        return False
    if not isinstance(angle, Tensor) and angle >= RESOLVED:
        return False
    kind = str(parameter.dtype).removeprefix("torch.")
    asked = "" if isinstance(angle, Tensor) else f" this run's steps turn by {angle:.1e};"
    warnings.warn(
        f"{who}: weights are {kind}, whose rounding turns them by "
        f"{rounding_angle(parameter.dtype):.1e} radians;{asked} below {RESOLVED:g} keep float32 "
        "weights (autocast does)",
        stacklevel=4,
    )
    return True


def find_members(who: str, groups: Sequence[Mapping[str, Any]], turns: Any) -> list[Members]:
    """Sort the parameters that have gradients by device and dtype.

    Args:
        who: The optimizer's name.
        groups: Its parameter groups.
        turns: Called with a group and a parameter: whether it is rotational.

    Raises:
        RuntimeError: A gradient is sparse or complex.
    """
    found: dict[Any, list[Member]] = {}
    for index, group in enumerate(groups):
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None or parameter.numel() == 0:
                continue
            if gradient.is_sparse or gradient.is_complex():
                kind = "sparse" if gradient.is_sparse else "complex"
                raise RuntimeError(
                    f"{who}: a gradient of shape {tuple(gradient.shape)} is {kind}, which is not "
                    "supported; use a dense, real one"
                )
            turning = turns(group, parameter)
            per_row = turning and group["per_neuron"] and parameter.ndim > 1
            member = Member(parameter, index, turning, per_row)
            found.setdefault((parameter.device, parameter.dtype), []).append(member)
    return [Members(tuple(members)) for members in found.values()]
