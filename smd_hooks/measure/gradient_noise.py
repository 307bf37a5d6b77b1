"""Signal-to-noise ratio of gradients, the batch size at which they agree, and their momentum.

The two batch sizes that :mod:`smd_hooks.theory.gradient_noise` needs are there anyway:
micro-batches, of gradient accumulation or of data-parallel processes, and all of a step.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.optim import Optimizer

from ..theory.gradient_noise import NoiseAverage, two_batch_estimate
from .momentum_alignment import momentum_alignments
from .never_measured import NeverMeasured
from .parameters import is_measurable
from .representation import StepCount, match_layers, refuse_sharded
from .stepping import AroundStep

_COLUMNS = {
    "step": np.int64,
    "parameter": np.str_,
    "signal": np.float64,
    "noise": np.float64,
    "signal_to_noise": np.float64,
    "critical_batch_size": np.float64,
    "gradient_momentum_alignment": np.float64,
}


@dataclass
class _MicroBatches:
    """What one step's micro-batches have left of one parameter's gradient."""

    total: Tensor
    squares: Tensor
    count: int


class GradientNoiseProbe:
    """Measures gradient signal, noise and alignment of named layers at optimizer steps.

    Small batches are the micro-batches of gradient accumulation, the processes of data
    parallelism, or both; the large one is all of the step. Gradients are read as each
    backward pass delivers them, before they are reduced over processes, unscaled or
    clipped. It changes nothing, and reads nothing back from the device until drained.

    **It communicates**: with several processes, each measured step all-reduces the
    watched gradients once over the default process group, inside ``optimizer.step()``.
    All processes must have the probe, with the same arguments. Draining is local.

    Conventions: one backward pass per micro-batch; its loss is the mean over its
    examples, divided by the number of micro-batches of the step (as MMEngine does). If
    it is not divided, or a gradient scaler multiplies it, ``signal`` and ``noise`` are
    larger by the square of that factor, and the ratios are what they are.

    BatchNorm ties the examples of a micro-batch together: its φ is that of micro-batches,
    seen as if examples were independent.

    Args:
        optimizer: Any ``torch.optim.Optimizer``.
        named_parameters: ``model.named_parameters()`` of the model it trains.
        layers: Names of modules, or shell-style patterns of them. Watched are their own
            weight matrices (no gains or biases) that the optimizer trains.
        interval: Optimizer steps between samples.
        batch_size: Examples per micro-batch and process.
        first_step: Number of optimizer steps taken before this run was resumed.

    Raises:
        ValueError: ``interval`` or ``batch_size`` < 1; a pattern matches no layer with
            such a parameter; or a parameter is sharded.

    Example::

        probe = GradientNoiseProbe(
            optimizer, model.named_parameters(), ["layer4.*"], interval=100, batch_size=32
        )
        for step in range(steps):
            for x, y in micro_batches(step):  # 4 of them
                (loss_function(model(x), y) / 4).backward()
            optimizer.step()
            optimizer.zero_grad()
        probe.drain()["critical_batch_size"]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        named_parameters: Iterable[tuple[str, Tensor]],
        layers: str | Iterable[str],
        interval: int,
        batch_size: int,
        first_step: int = 0,
    ) -> None:
        who = type(self).__name__
        for name, value in (("interval", interval), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{who}: {name} must be 1 or more, got {value}")
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        there: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, parameter in named_parameters:
            if id(parameter) in held and is_measurable(parameter) and parameter.requires_grad:
                there[name.rpartition(".")[0]][name] = parameter
        self._watched: dict[str, Tensor] = {}
        for layer in match_layers(who, layers, there):
            self._watched.update(there[layer])
        refuse_sharded(who, self._watched)
        self.interval = interval
        self.batch_size = batch_size
        self._count = StepCount(first_step)
        self._arriving: dict[str, tuple[Tensor, bool]] = {}
        self._seen: dict[str, _MicroBatches] = {}
        self._samples: list[tuple[StepCount, Tensor]] = []
        self._averages: dict[str, NoiseAverage] = defaultdict(NoiseAverage)
        self._never = NeverMeasured(who, "have had no gradient")
        self._handles: list[Any] = [AroundStep(optimizer, self._before_step)]
        for name, parameter in self._watched.items():
            arrive, accumulate = self._backward_hooks(name)
            self._handles.append(parameter.register_hook(arrive))
            self._handles.append(parameter.register_post_accumulate_grad_hook(accumulate))

    def detach(self) -> None:
        """Remove the hooks; what was measured stays readable."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._arriving, self._seen = {}, {}

    @property
    def step(self) -> int:
        """Optimizer steps taken so far."""
        return self._count.step()

    def __len__(self) -> int:
        """Number of samples that wait to be drained."""
        return len(self._samples)

    def _backward_hooks(
        self, name: str
    ) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
        """Hooks that see a micro-batch's gradient, and then that it is a step's.

        The first also sees gradients that ``torch.autograd.grad`` only asks for; the
        second sees none of the micro-batch's own. Together they see what is needed, and
        before data parallelism reduces it.
        """
        parameter = self._watched[name]

        def arrive(gradient: Tensor) -> None:
            if self._count.attempts % self.interval == 0 and not gradient.is_sparse:
                self._arriving[name] = gradient, parameter.grad is None

        @torch.no_grad()
        def accumulate(_: Tensor) -> None:
            if name in self._arriving:
                gradient, first = self._arriving.pop(name)
                self._add(name, gradient.detach(), first)

        return arrive, accumulate

    def _add(self, name: str, gradient: Tensor, first: bool) -> None:
        square = torch.linalg.vector_norm(gradient, dtype=torch.float64) ** 2
        seen = self._seen.get(name)
        # an empty .grad begins a step, also where the one before was skipped
        if seen is None or first:
            total = gradient.to(_sum_dtype(gradient), copy=True)
            self._seen[name] = _MicroBatches(total, square, 1)
        else:
            seen.total += gradient
            seen.squares = seen.squares + square
            seen.count += 1

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._count.attempts % self.interval == 0:
            self._measure(optimizer)
        self._seen = {}
        self._count.advance(optimizer)

    def _measure(self, optimizer: Optimizer) -> None:
        micro_batches = max((seen.count for seen in self._seen.values()), default=0)
        processes = distributed.get_world_size() if _parallel() else 1
        # whether to communicate must depend on nothing that processes may differ in
        if processes == micro_batches == 1:
            warnings.warn(
                "GradientNoiseProbe: a step of one micro-batch on one process does not show its "
                "noise; accumulate gradients over two or more, or train on several processes",
                stacklevel=2,
            )
            return
        squares, totals = [], []
        for name, parameter in self._watched.items():
            seen = self._seen.get(name)
            zero = torch.zeros((), dtype=torch.float64, device=parameter.device)
            squares.append(zero if seen is None else seen.squares)
            totals.append(
                torch.zeros_like(parameter, dtype=_sum_dtype(parameter))
                if seen is None
                else seen.total
            )
        counts = [torch.zeros_like(squares[0]) for _ in range(processes)]
        counts[distributed.get_rank() if processes > 1 else 0] += micro_batches
        sums = torch.stack([*squares, *counts])
        if processes > 1:
            distributed.all_reduce(sums)
            for total in totals:
                distributed.all_reduce(total)
        # one that uses none of the layers is a micro-batch too, and its gradient is 0;
        # where there is no gradient at all, any number gives estimates of 0
        per_process = sums[-processes:].max().clamp(min=2 if processes == 1 else 1)
        batches = per_process * processes
        # a micro-batch's gradient came divided by the micro-batches of its process
        unit = per_process**2
        total_norms = torch.stack(
            [torch.linalg.vector_norm(t, dtype=torch.float64) for t in totals]
        )
        signal, noise = two_batch_estimate(
            unit * sums[:-processes] / batches,
            unit * (total_norms / batches) ** 2,
            self.batch_size,
            self.batch_size * batches,
        )
        alignment = momentum_alignments(optimizer, self._watched.values())
        self._samples.append((replace(self._count), torch.stack((signal, noise, alignment))))

    def memory(self) -> dict[str, list[tuple[float, float]]]:
        """Return the drained estimates that ratios are still taken over, for a checkpoint."""
        return {name: average.estimates for name, average in self._averages.items()}

    def remember(self, memory: Mapping[str, Sequence[tuple[float, float]]]) -> None:
        """Let a new probe go on from what :meth:`memory` returned."""
        for name, estimates in memory.items():
            for signal, noise in estimates:
                self._averages[name].add(signal, noise)

    def drain(self) -> dict[str, np.ndarray]:
        """Bring the waiting samples to the host and forget them.

        Parameters without a gradient (a warning names those that never had one), and
        steps with one that is not finite (a gradient scaler skips them), are left out.
        Ratios are of the means over each parameter's
        last measured steps of this run (``theory.gradient_noise.WINDOW`` of them); over
        other windows, or parameters together, divide sums of ``signal`` by sums of
        ``noise``.

        Returns:
            Columns of equal length, one entry per step and parameter: ``step``,
            ``parameter``, ``signal`` (estimate of ‖ḡ‖²; may be negative), ``noise`` (of
            E‖gᵢ − ḡ‖²), ``signal_to_noise`` (φ), ``critical_batch_size`` (examples) and
            ``gradient_momentum_alignment`` (the cosine of the step's gradient and the
            momentum before the step, −1…1, see :func:`~smd_hooks.measure.momentum_alignment.
            momentum_alignments`). The ratios are NaN where the mean signal or noise is not
            positive, the cosine where there is no momentum.
        """
        samples, self._samples = self._samples, []
        rows = []
        for count, estimates in samples:
            step = count.step()
            told = zip(self._watched, estimates.T.tolist(), strict=True)
            for name, (signal, noise, alignment) in told:
                if not (math.isfinite(signal) and math.isfinite(noise)):
                    continue
                self._never.count(name, measured=bool(signal or noise))
                if signal == noise == 0:
                    continue
                average = self._averages[name]
                average.add(signal, noise)
                snr, critical = average.signal_to_noise, average.critical_batch_size
                rows.append((step, name, signal, noise, snr, critical, alignment))
        self._never.say()
        columns = zip(*rows, strict=True) if rows else ((),) * len(_COLUMNS)
        return {
            name: np.array(column, dtype)
            for (name, dtype), column in zip(_COLUMNS.items(), columns, strict=True)
        }


def _sum_dtype(gradient: Tensor) -> torch.dtype:
    return torch.promote_types(gradient.dtype, torch.float32)


def _parallel() -> bool:
    return distributed.is_available() and distributed.is_initialized()
