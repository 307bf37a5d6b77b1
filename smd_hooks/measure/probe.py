"""The probe: one sample per measured optimizer step, in any training loop."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from .geometry import STEP_STATISTICS, step_statistics

if TYPE_CHECKING:
    import pandas as pd

RESCALE_KEY = "smd_rescale"
"""Key in ``optimizer.state[p]``: product of all factors put on p outside the optimizer."""


@dataclass
class _Sample:
    """One measured step; the statistics stay on their device until drained."""

    step: int
    iteration: int
    skipped: Tensor | None
    statistics: Tensor | None = None
    weights: list[int] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    weight_decay: list[float] = field(default_factory=list)
    rescale: list[float] = field(default_factory=list)


class StepProbe:
    """Measures every weight matrix of an optimizer at its own step.

    It sits on the optimizer's step hooks, so that it sees w_t with the gradient the
    optimizer used (accumulated, unscaled, clipped) and then w_{t+1}; it changes
    nothing, and reads nothing back from the device until it is drained.

    Args:
        optimizer: Any ``torch.optim.Optimizer``.
        named_parameters: ``model.named_parameters()``. Measured are those with two or
            more dimensions that the optimizer holds; gains and biases are no candidates
            for scale invariance.
        interval: Optimizer steps between samples.
        first_step: Number of optimizer steps taken before this run was resumed.

    Raises:
        ValueError: ``interval`` < 1, or the optimizer holds no named matrix.

    Example::

        probe = StepProbe(optimizer, model.named_parameters(), interval=10)
        for x, y in loader:
            optimizer.zero_grad()
            loss_function(model(x), y).backward()
            optimizer.step()
        probe.to_frame()
        probe.detach()
    """

    def __init__(
        self,
        optimizer: Optimizer,
        named_parameters: Iterable[tuple[str, Tensor]],
        interval: int = 1,
        first_step: int = 0,
    ) -> None:
        if interval < 1:
            raise ValueError(f"StepProbe: interval must be 1 or more, got {interval}")
        self.optimizer = optimizer
        self.interval = interval
        self.step = first_step
        self.iteration: int | None = None
        """The training loop's own count, where it differs from optimizer steps."""
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        matrices = [(n, p) for n, p in named_parameters if id(p) in held and p.ndim >= 2]
        if not matrices:
            raise ValueError("StepProbe: the optimizer holds no named parameter with ndim >= 2")
        self.names = [name for name, _ in matrices]
        self.weights = [weight for _, weight in matrices]
        self._before: list[Tensor | None] = []
        self._had_buffer: list[bool] = []
        self._samples: list[_Sample] = []
        self._handles = [
            optimizer.register_step_pre_hook(torch.compiler.disable(self._before_step)),
            optimizer.register_step_post_hook(torch.compiler.disable(self._after_step)),
        ]

    def detach(self) -> None:
        """Remove the hooks from the optimizer; what was measured stays readable."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._before = []

    def __len__(self) -> int:
        """Number of samples that wait to be drained."""
        return len(self._samples)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self.step % self.interval:
            return
        # a sparse gradient is no gradient of the whole matrix
        self._before = [
            None if p.grad is None or p.grad.is_sparse else p.detach().clone() for p in self.weights
        ]
        self._had_buffer = [
            torch.is_tensor(optimizer.state.get(p, {}).get("momentum_buffer")) for p in self.weights
        ]

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._before:
            self._samples.append(self._measure(optimizer))
            self._before = []
        self.step += 1

    @torch.no_grad()
    def _measure(self, optimizer: Optimizer) -> _Sample:
        group_of = {p: group for group in optimizer.param_groups for p in group["params"]}
        sample = _Sample(
            self.step,
            self.step if self.iteration is None else self.iteration,
            skipped=getattr(optimizer, "found_inf", None),
        )
        is_sgd = isinstance(optimizer, torch.optim.SGD)
        rows = []
        for i, (before, weight) in enumerate(zip(self._before, self.weights, strict=True)):
            if before is None or weight.grad is None:
                continue
            group, state = group_of[weight], optimizer.state.get(weight, {})
            alpha = float(group["momentum"]) if is_sgd else 0.0
            decay = float(group.get("weight_decay", 0.0))
            row = step_statistics(
                before,
                weight,
                weight.grad,
                state["momentum_buffer"] if alpha and self._had_buffer[i] else None,
                momentum=alpha,
                undamped=1.0 - float(group["dampening"]) if alpha else 1.0,
                weight_decay=decay,
            )
            if not is_sgd or group["maximize"]:  # other buffers mean something else
                row[STEP_STATISTICS.index("gradient_momentum_dot")] = math.nan
            rows.append(row)
            sample.weights.append(i)
            sample.lr.append(float(group["lr"]))
            sample.weight_decay.append(decay)
            sample.rescale.append(float(state.get(RESCALE_KEY, 1.0)))
        if rows:
            sample.statistics = torch.stack(rows)
        return sample

    def drain(self) -> dict[str, np.ndarray]:
        """Bring the waiting samples to the host and forget them.

        Steps that a gradient scaler skipped are left out.

        Returns:
            Columns of equal length, one entry per step and weight: ``step``,
            ``iteration``, ``weight`` (index into :attr:`names`), ``lr``,
            ``weight_decay``, ``rescale`` and :data:`STEP_STATISTICS`.
        """
        samples, self._samples = self._samples, []
        samples = [s for s in samples if s.skipped is None or not s.skipped.item()]
        measured = [s.statistics for s in samples if s.statistics is not None]
        values = (
            torch.cat(measured).cpu().numpy() if measured else np.empty((0, len(STEP_STATISTICS)))
        )
        counts = [len(s.weights) for s in samples]
        columns: dict[str, np.ndarray] = {
            "step": np.repeat(np.array([s.step for s in samples], np.int64), counts),
            "iteration": np.repeat(np.array([s.iteration for s in samples], np.int64), counts),
            "weight": np.array([i for s in samples for i in s.weights], np.int16),
            "lr": np.array([x for s in samples for x in s.lr], float),
            "weight_decay": np.array([x for s in samples for x in s.weight_decay], float),
            "rescale": np.array([x for s in samples for x in s.rescale], float),
        }
        columns.update({name: values[:, j] for j, name in enumerate(STEP_STATISTICS)})
        return columns

    def to_frame(self) -> pd.DataFrame:
        """Return the samples since the last :meth:`drain` in long form, and keep them.

        One row per step and unit, with the columns step, parameter, unit (here always
        the whole tensor), lr, weight_decay, weight_norm, gradient_norm,
        unit_gradient_norm (‖g‖·‖w‖), gradient_momentum_dot (⟨v₋₁, g⟩), radial_cosine,
        update_norm and angular_update (radians).
        """
        import pandas as pd

        kept = self._samples
        frame = pd.DataFrame(self.drain())
        self._samples = kept
        frame.insert(1, "parameter", [self.names[i] for i in frame.pop("weight")])
        frame.insert(2, "unit", "tensor")
        frame.insert(
            frame.columns.get_loc("gradient_norm") + 1,
            "unit_gradient_norm",
            frame["gradient_norm"] * frame["weight_norm"],
        )
        return frame.drop(columns=["iteration", "rescale"])
