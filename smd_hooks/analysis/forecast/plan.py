"""A training plan as plain data: what a forecast needs to know of a config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...theory import UpdateRule


@dataclass(frozen=True)
class Layers:
    """Which weight matrices a norm's own statistics make scale-invariant.

    Attributes:
        invariant: Names of the scale-invariant ones.
        others: Names of those that are not, by the reason in words.
        unknown: Names of those that nobody could judge, by the reason in words.
        note: How the layers were judged, where that limits what was found.
    """

    invariant: tuple[str, ...] = ()
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""

    @property
    def matrices(self) -> int:
        """Number of weight matrices in all."""
        rest = [*self.others.values(), *self.unknown.values()]
        return len(self.invariant) + sum(len(names) for names in rest)

    @property
    def verdict(self) -> str:
        """``"some"`` are scale-invariant, ``"none"`` can be, or it is ``"unknown"``."""
        if self.invariant:
            return "some"
        return "unknown" if self.unknown or not self.matrices else "none"


@dataclass(frozen=True)
class WeightGroup:
    """Weights that share an update rule and a learning-rate schedule.

    Attributes:
        rule: The update rule, at any learning rate; in words where there is none.
        lr: Learning rate of each stretch of the plan, shape (stretches,).
        weights: Names of its weight matrices.
        initial_norm: ‖w‖ at initialisation over its equilibrium norm at the peak learning
            rate, median over its scale-invariant weights; None where it is not known.
        initial_rms: Root mean square of a coordinate at initialisation, likewise.
        initial_unknown: In words, why these are not known.
    """

    rule: UpdateRule | str
    lr: np.ndarray
    weights: tuple[str, ...] = ()
    initial_norm: float | None = None
    initial_rms: float | None = None
    initial_unknown: str = ""


@dataclass(frozen=True)
class Plan:
    """What a config will do, in stretches of optimizer steps at constant learning rate.

    Attributes:
        name: The config's name.
        starts: First optimizer step of each stretch, increasing from 0, shape (stretches,).
        steps: Number of optimizer steps in all.
        groups: Weights by update rule, the largest group first.
        layers: Which of them can be scale-invariant.
        optimizer: The optimizer in a few words.
        steps_per_epoch: Optimizer steps an epoch; None where nobody said.
        rescaled: Whether EquilibriumRescaleHook is among the hooks.
        clipped_to: Largest gradient norm, None without clipping by norm.
        notes: What was assumed on the way, in words.

    Raises:
        ValueError: Stretches are not increasing from 0 to less than ``steps``, or a group
            has another number of them.
    """

    name: str
    starts: np.ndarray
    steps: int
    groups: tuple[WeightGroup, ...]
    layers: Layers = Layers()
    optimizer: str = ""
    steps_per_epoch: float | None = None
    rescaled: bool = False
    clipped_to: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bounds = np.append(self.starts, self.steps)
        if len(self.starts) == 0 or self.starts[0] != 0 or not (np.diff(bounds) > 0).all():
            raise ValueError("a plan's stretches must begin at 0 and increase up to its last step")
        if any(len(group.lr) != len(self.starts) for group in self.groups):
            raise ValueError("each group of a plan needs one learning rate per stretch")
