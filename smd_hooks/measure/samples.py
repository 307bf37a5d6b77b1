"""Samples that stay on the device until somebody wants them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .geometry import STEP_STATISTICS, STEP_SUMS, statistics
from .momentum import Momentum

CAPACITY = 64
"""Samples that the ring on the device holds at most; a full one comes over in one copy."""
RING_BYTES = 1 << 24
"""Size of the ring at most, unless a single sample is larger."""
WHOLE = -1
"""Number of the unit that is a whole tensor, or a joint group of tensors."""
_GG, _WG, _VG = (STEP_SUMS.index(name) for name in ("gg", "wg", "bg"))


@dataclass
class Sample:
    """One measured step, its settings as they were read, tensors as they are.

    Attributes:
        attempt: Optimizer steps tried before it, those that a gradient scaler skipped
            included.
        iteration: The training loop's own count.
        skipped: Steps skipped before this one, on the device; None where none can be.
        found_inf: Whether this one was skipped, on the device.
        weights: Index of each weight measured; the following have one entry for each.
        counts: Rows of sums: its filters, or 1.
        lr: η; a clone where it is a tensor.
        weight_decay: λ, likewise.
        rescale: Product of the factors that others put on the weight.
        angle_factor: Factor that others put on the angle that its optimizer sets.
        momentum: How its buffer moved; None where that is not known.
        had_buffer: Whether there was a buffer before the step.
    """

    attempt: int
    iteration: int
    skipped: Tensor | None = None
    found_inf: Tensor | None = None
    weights: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    lr: list[Any] = field(default_factory=list)
    weight_decay: list[Any] = field(default_factory=list)
    rescale: list[Any] = field(default_factory=list)
    angle_factor: list[Any] = field(default_factory=list)
    momentum: list[Momentum | None] = field(default_factory=list)
    had_buffer: list[bool] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Number of optimizer steps that were taken before this one."""
        return self.attempt - (0 if self.skipped is None else int(self.skipped.item()))

    @property
    def was_skipped(self) -> bool:
        """Whether a gradient scaler skipped the step after all."""
        return self.found_inf is not None and bool(self.found_inf.item())


class SampleRing:
    """A ring of sums on the device, and the columns that were made of them on the host.

    Args:
        groups: By index, the members of each joint group; it may grow.
    """

    def __init__(self, groups: Mapping[int, tuple[int, ...]]) -> None:
        self._groups = groups
        self._ring: Tensor | None = None
        self._waiting: list[Sample] = []
        self._arrived: list[dict[str, np.ndarray]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, sample: Sample, sums: Tensor) -> None:
        """Take a sample and its rows of sums, shape (rows, 6), without waiting."""
        total = len(sums)
        if self._ring is None or total > self._ring.shape[1]:
            self.flush()
            fit = RING_BYTES // (8 * len(STEP_SUMS) * max(total, 1))
            shape = (max(1, min(CAPACITY, fit)), total, len(STEP_SUMS))
            self._ring = torch.empty(shape, dtype=torch.float64, device=sums.device)
        self._ring[len(self._waiting), :total] = sums
        self._waiting.append(sample)
        self._count += 1
        if len(self._waiting) == len(self._ring):
            self.flush()

    def flush(self) -> None:
        """Bring everything over; the one place where the host waits for the device."""
        if self._ring is None or not self._waiting:
            return
        arrived = self._ring[: len(self._waiting)].cpu().numpy()
        for sample, sums in zip(self._waiting, arrived, strict=True):
            if not sample.was_skipped:
                rows = sums[: sum(sample.counts)]
                self._arrived.append(sample_columns(sample, rows, self._groups))
        self._waiting = []

    def read(self) -> dict[str, np.ndarray]:
        """Return the columns of all samples, without the steps that were skipped."""
        self.flush()
        empty = sample_columns(Sample(0, 0), np.empty((0, len(STEP_SUMS))), {})
        parts = [empty, *self._arrived]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in empty}
        self._arrived = [joined]
        return dict(joined)

    def clear(self) -> None:
        """Forget what was brought over."""
        self._arrived, self._count = [], len(self._waiting)


def sample_columns(
    sample: Sample, sums: np.ndarray, groups: Mapping[int, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Turn a sample into columns of equal length, one entry per unit.

    Args:
        sample: The sample.
        sums: Its rows of :data:`~smd_hooks.measure.geometry.STEP_SUMS`.
        groups: By index, the members of each joint group.

    Returns:
        ``step``, ``iteration``, ``weight`` (index), ``unit`` (:data:`WHOLE`, or the number
        of the filter), ``lr``, ``weight_decay``, ``rescale``, ``angle_factor`` and
        :data:`~smd_hooks.measure.geometry.STEP_STATISTICS`: first the tensors, then the
        joint groups, then the filters.
    """
    counts = np.array(sample.counts, int)
    sums = _with_previous_momentum(sample, counts, sums)
    first = counts.cumsum() - counts
    whole = np.add.reduceat(sums, first) if len(counts) else sums
    filters = np.repeat(counts > 1, counts)
    place_of = {weight: place for place, weight in enumerate(sample.weights)}
    joined = {
        index: [place_of[member] for member in members]
        for index, members in groups.items()
        if all(member in place_of for member in members)
    }
    # which weight's settings each row takes
    places = np.concatenate(
        [
            np.arange(len(counts)),
            np.array([members[0] for members in joined.values()], int),
            np.repeat(np.arange(len(counts)), counts)[filters],
        ]
    )
    units = np.full(len(places), WHOLE)
    units[len(counts) + len(joined) :] = (np.arange(len(sums)) - first.repeat(counts))[filters]
    weights = np.array(sample.weights, np.int32)[places]
    weights[len(counts) : len(counts) + len(joined)] = list(joined)
    groups_sums = [whole[members].sum(0) for members in joined.values()]
    rows = np.concatenate([whole, np.array(groups_sums).reshape(-1, len(STEP_SUMS)), sums[filters]])
    measured = statistics(rows)
    return {
        "step": np.full(len(places), sample.step if len(places) else 0, np.int64),
        "iteration": np.full(len(places), sample.iteration, np.int64),
        "weight": weights,
        "unit": units.astype(np.int32),
        "lr": np.array([float(x) for x in sample.lr])[places],
        "weight_decay": np.array([float(x) for x in sample.weight_decay])[places],
        "rescale": np.array([float(x) for x in sample.rescale])[places],
        "angle_factor": np.array([float(x) for x in sample.angle_factor])[places],
        **{name: measured[name] for name in STEP_STATISTICS},
    }


def _with_previous_momentum(sample: Sample, counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Put ⟨v₋₁, g⟩ in the place of ⟨v, g⟩, row by row."""
    sums = sums.copy()
    if not len(sums):
        return sums
    described = zip(sample.momentum, sample.had_buffer, strict=True)
    coefficients = np.array([_coefficients(*each) for each in described]).repeat(counts, 0)
    sums[:, _VG] = (coefficients * sums[:, [_VG, _GG, _WG]]).sum(1)
    return sums


def _coefficients(momentum: Momentum | None, had_buffer: bool) -> tuple[float, float, float]:
    """⟨v₋₁, g⟩ as a combination of ⟨v, g⟩, ‖g‖² and ⟨w, g⟩."""
    if momentum is None:
        return np.nan, np.nan, np.nan
    return momentum.undo() if had_buffer else (0.0, 0.0, 0.0)
