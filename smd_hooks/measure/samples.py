"""Samples that stay on the device until somebody wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .geometry import STEP_STATISTICS, STEP_SUMS, statistics
from .momentum import Momentum

CAPACITY = 64
"""Samples that the ring on the device holds; a full one is brought over in one copy."""
WHOLE = -1
"""Number of the unit that is a whole tensor, or a joint group of tensors."""


@dataclass
class Reading:
    """What is read off the optimizer for one weight at one step, tensors as they are.

    Attributes:
        weight: Index of the weight.
        lr: η; a clone where it is a tensor.
        weight_decay: λ, likewise.
        rescale: Product of the factors that others put on the weight.
        momentum: How its buffer moved; None where that is not known.
        had_buffer: Whether there was a buffer before the step.
    """

    weight: int
    lr: Any
    weight_decay: Any
    rescale: Any
    momentum: Momentum | None
    had_buffer: bool


@dataclass
class Sample:
    """One measured step.

    Attributes:
        attempt: Optimizer steps tried before it, those that a gradient scaler skipped
            included.
        iteration: The training loop's own count.
        readings: One for each weight with a gradient.
        counts: Rows of sums that each of them has: its filters, or 1.
        skipped: Steps skipped before this one, on the device; None where none can be.
        found_inf: Whether this one was skipped, on the device.
        sums: Rows of :data:`~smd_hooks.measure.geometry.STEP_SUMS`, once brought over.
    """

    attempt: int
    iteration: int
    readings: list[Reading]
    counts: list[int]
    skipped: Tensor | None = None
    found_inf: Tensor | None = None
    sums: np.ndarray = field(default_factory=lambda: np.empty((0, len(STEP_SUMS))))

    @property
    def step(self) -> int:
        """Number of optimizer steps that were taken before this one."""
        return self.attempt - (0 if self.skipped is None else int(self.skipped.item()))

    @property
    def was_skipped(self) -> bool:
        """Whether a gradient scaler skipped the step after all."""
        return self.found_inf is not None and bool(self.found_inf.item())


class SampleRing:
    """A ring of sums on the device, and the samples that were brought over from it."""

    def __init__(self) -> None:
        self._ring: Tensor | None = None
        self._waiting: list[Sample] = []
        self._arrived: list[Sample] = []

    def __len__(self) -> int:
        return len(self._waiting) + len(self._arrived)

    def put(self, sample: Sample, sums: Tensor) -> None:
        """Take a sample and its rows of sums, shape (rows, 6), without waiting."""
        total = len(sums)
        if self._ring is None or total > self._ring.shape[1]:
            self.flush()
            shape = (CAPACITY, total, len(STEP_SUMS))
            self._ring = torch.empty(shape, dtype=torch.float64, device=sums.device)
        self._ring[len(self._waiting), :total] = sums
        self._waiting.append(sample)
        if len(self._waiting) == CAPACITY:
            self.flush()

    def flush(self) -> None:
        """Bring everything over; the one place where the host waits for the device."""
        if self._ring is not None and self._waiting:
            arrived = self._ring[: len(self._waiting)].cpu().numpy()
            for sample, sums in zip(self._waiting, arrived, strict=True):
                sample.sums = sums[: sum(sample.counts)].copy()
        self._arrived += self._waiting
        self._waiting = []

    def read(self) -> list[Sample]:
        """Bring everything over and return it, without the steps that were skipped."""
        self.flush()
        self._arrived = [sample for sample in self._arrived if not sample.was_skipped]
        return list(self._arrived)

    def clear(self) -> None:
        """Forget what was brought over."""
        self._arrived = []


def columns(samples: Iterable[Sample], groups: dict[int, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Turn samples into columns of equal length, one entry per step and unit.

    Args:
        samples: Samples whose sums have been brought over.
        groups: By index, the members of each joint group.

    Returns:
        ``step``, ``iteration``, ``weight`` (index), ``unit`` (:data:`WHOLE`, or the number
        of the filter), ``lr``, ``weight_decay``, ``rescale`` and
        :data:`~smd_hooks.measure.geometry.STEP_STATISTICS`.
    """
    scalars: list[tuple[int, int, int, int, float, float, float]] = []
    sums = [np.empty((0, len(STEP_SUMS)))]
    for sample in samples:
        whole: dict[int, tuple[Reading, np.ndarray]] = {}
        at, step = 0, sample.step
        for reading, count in zip(sample.readings, sample.counts, strict=True):
            rows = _with_previous_momentum(reading, sample.sums[at : at + count])
            at += count
            total = rows.sum(0)
            whole[reading.weight] = reading, total
            units = [WHOLE, *range(count)] if count > 1 else [WHOLE]
            sums += [total[None]] if count == 1 else [total[None], rows]
            scalars += [_scalars(sample, step, reading, reading.weight, unit) for unit in units]
        for index, members in groups.items():
            if all(member in whole for member in members):
                sums.append(sum(whole[member][1] for member in members)[None])  # type: ignore[index]
                scalars.append(_scalars(sample, step, whole[members[0]][0], index, WHOLE))
    names: tuple[tuple[str, Callable[..., Any]], ...] = (
        *(("step", np.int64), ("iteration", np.int64), ("weight", np.int32), ("unit", np.int32)),
        *(("lr", np.float64), ("weight_decay", np.float64), ("rescale", np.float64)),
    )
    told = list(zip(*scalars, strict=True)) or [()] * len(names)
    result = {name: np.array(told[i], kind) for i, (name, kind) in enumerate(names)}  # type: ignore[call-overload]
    measured = statistics(np.concatenate(sums))
    return {**result, **{name: measured[name] for name in STEP_STATISTICS}}


def _with_previous_momentum(reading: Reading, sums: np.ndarray) -> np.ndarray:
    """Put ⟨v₋₁, g⟩ in the place of ⟨v, g⟩."""
    sums = sums.copy()
    momentum = reading.momentum
    for row in sums:
        if momentum is None:
            row[5] = np.nan
        elif not reading.had_buffer:
            row[5] = 0.0
        else:
            row[5] = momentum.before_step(row[5], row[3], row[4])
    return sums


def _scalars(
    sample: Sample, step: int, reading: Reading, weight: int, unit: int
) -> tuple[int, int, int, int, float, float, float]:
    lr, decay = float(reading.lr), float(reading.weight_decay)
    return step, sample.iteration, weight, unit, lr, decay, float(reading.rescale)
