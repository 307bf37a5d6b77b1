"""The probe: one sample per measured optimizer step, in any training loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from .c_sums import Vectors, copy_all
from .fused import fused_step_sums
from .geometry import as_vectors
from .measured_units import MeasuredUnits, NamedParameters
from .momentum import Momentum, momentum_of
from .precision import precision_warning
from .samples import WHOLE, Sample, SampleRing
from .sharding import local, sum_over_shards
from .stepping import AroundStep, check_interval, closure_of

if TYPE_CHECKING:
    import pandas as pd

RESCALE_KEY = "smd_rescale"
"""Key in ``optimizer.state[p]``: product of all factors put on p outside the optimizer."""
ANGLE_FACTOR_KEY = "angle_factor"
"""Key in ``optimizer.state[p]``: factor on the angle by which the optimizer turns p, if any."""


class StepProbe:
    """Measures every weight matrix of an optimizer at its own step.

    It sits on the optimizer's step hooks, so that it sees w_t with the gradient the
    optimizer used (accumulated, unscaled, clipped) and then w_{t+1}. It counts optimizer
    steps; steps that a gradient scaler skips are none. It changes nothing, keeps one copy
    of the weights, and reads nothing back from the device but a full ring of samples.
    What it brought over stays in memory until it is drained: some hundred bytes per row.

    Under DDP every process may measure, or one alone: there is no communication. With
    FSDP2 every process must, because sums over shards are added up.

    Args:
        optimizer: Any ``torch.optim.Optimizer``.
        named_parameters: ``model.named_parameters()``, or the method itself where the model
            may grow. Measured are the matrices that the optimizer holds, now or later: those
            with two dimensions larger than 1; gains and biases are no candidates for scale
            invariance.
        interval: Optimizer steps between samples.
        per_filter: Measure each filter (row, the first dimension) beside each tensor.
        first_step: Number of optimizer steps taken before this run was resumed.

    Raises:
        ValueError: ``interval`` < 1, the optimizer holds no named matrix, or filters of
            sharded weights were asked for.
        RuntimeError: The optimizer hides its steps or its weights (DeepSpeed,
            ZeroRedundancyOptimizer, FSDP1).

    Warns:
        UserWarning: Weights are bf16 or fp16, with the angle that rounding hides.

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
        named_parameters: NamedParameters | Callable[[], NamedParameters],
        interval: int = 1,
        *,
        per_filter: bool = False,
        first_step: int = 0,
    ) -> None:
        check_interval("StepProbe", interval)
        self._units = MeasuredUnits(optimizer, named_parameters)
        if not self._units.weights:
            raise ValueError("StepProbe: the optimizer holds no weight matrix (two dimensions > 1)")
        if per_filter and self._units.is_sharded:
            raise ValueError("StepProbe: filters of sharded weights cannot be measured apart")
        low = precision_warning(self.names, list(self._units.weights.values()))
        if low:
            warnings.warn(f"StepProbe: {low}", stacklevel=2)
        self.optimizer = optimizer
        self.interval = interval
        self.per_filter = per_filter
        self.iteration: int | None = None
        """The training loop's own count, where it differs from optimizer steps."""
        self._filtered: set[int] | None = None
        self._attempts = first_step
        self._skipped_before = 0
        self._skipped: Tensor | None = None
        self._copies: dict[int, Tensor] = {}
        self._seen: list[int] = []
        self._had_buffer: list[bool] = []
        self._versions: list[int] = []
        self._momenta: list[Momentum | None] = []
        self._measuring = False
        self._ring = SampleRing(self.groups)
        self._around = AroundStep(optimizer, self._before_step, self._after_step)

    # ----------------------------------------------------------------- what is measured

    @property
    def names(self) -> list[str]:
        """What is measured, in the order of the indices in samples; it only ever grows."""
        return self._units.names

    @property
    def groups(self) -> dict[int, tuple[int, ...]]:
        """Members of the joint groups among them, by index."""
        return self._units.groups

    def weight(self, index: int) -> Tensor:
        """Return the parameter with this index; a joint group has none."""
        return self._units.weights[index]

    def param_group(self, index: int) -> dict[str, Any]:
        """Return the optimizer's group of the parameter with this index."""
        return self.optimizer.param_groups[self._units.group_of[index]]

    def join(self, members: Sequence[str]) -> int:
        """Measure several weights also as one: the concatenated vector.

        From now on: what was measured before stays as it is.

        Args:
            members: Names of measured weights, as in :attr:`names`.

        Returns:
            The index of the group; the same one when called again.

        Raises:
            KeyError: A member is not measured.
        """
        return self._units.join(members)

    def measure_filters(self, names: Iterable[str]) -> None:
        """From now on measure filters of these weights only, of those in :attr:`names`."""
        wanted = set(names)
        self._filtered = {i for i, name in enumerate(self.names) if name in wanted}

    # ------------------------------------------------------------------------- counting

    @property
    def step(self) -> int:
        """Optimizer steps taken so far, those before a resume included."""
        return self._attempts - self._all_skipped()

    def _all_skipped(self) -> int:
        skipped = 0 if self._skipped is None else int(self._skipped.item())
        return self._skipped_before + skipped

    def state_dict(self) -> dict[str, int]:
        """Return the count of steps, for a checkpoint."""
        return {"attempts": self._attempts, "skipped": self._all_skipped()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting where a checkpoint's probe stopped."""
        self._attempts, self._skipped_before = state["attempts"], state["skipped"]
        self._skipped = None

    def __len__(self) -> int:
        """Number of samples that wait to be drained."""
        return len(self._ring)

    # ------------------------------------------------------------------------- the step

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._measuring = self._attempts % self.interval == 0
        if not self._measuring:
            return
        self._units.find()
        # with a closure, gradients are made inside the step
        may_have = closure_of(args, kwargs) is not None
        weights = self._units.weights
        self._seen = [
            i
            for i in sorted(self._units.held)
            if _gradient(weights[i]) is not None or (may_have and weights[i].requires_grad)
        ]
        self._versions = [-1 if may_have else _version(weights[i]) for i in self._seen]
        originals = [weights[i] for i in self._seen]
        if self._units.is_sharded:
            originals = [local(w) for w in originals]
        for i, w in zip(self._seen, originals, strict=True):
            copy = self._copies.get(i)
            if copy is None or copy.shape != w.shape or copy.dtype != w.dtype:
                self._copies[i] = torch.empty_like(w)
        if originals:
            copy_all([self._copies[i] for i in self._seen], originals)
        self._momenta = [momentum_of(optimizer, group) for group in optimizer.param_groups]
        self._had_buffer = [self._buffer(i) is not None for i in self._seen]

    def _buffer(self, index: int) -> Tensor | None:
        momentum = self._momenta[self._units.group_of[index]]
        state = self.optimizer.state.get(self._units.weights[index])
        buffer = state.get(momentum.key) if state and momentum is not None else None
        return buffer if torch.is_tensor(buffer) else None

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # fused optimizers are called even if the scaler found an overflow, and skip inside
        found_inf = getattr(optimizer, "found_inf", None)
        if self._measuring:
            self._measure(optimizer, found_inf)
        if found_inf is not None:
            skipped = self._skipped if self._skipped is not None else torch.zeros_like(found_inf)
            self._skipped = skipped + found_inf
        self._attempts += 1

    def _measure(self, optimizer: Optimizer, found_inf: Tensor | None) -> None:
        sample = Sample(
            attempt=self._attempts - self._skipped_before,
            iteration=self._attempts if self.iteration is None else self.iteration,
            skipped=self._skipped,
            found_inf=None if found_inf is None else found_inf.clone(),
        )
        steps: list[Vectors] = []
        seen = zip(self._seen, self._had_buffer, self._versions, strict=True)
        for i, had_buffer, version in seen:
            weight, group = self._units.weights[i], self.param_group(i)
            gradient = _gradient(weight)
            if gradient is None:
                continue
            # fused optimizers unscale it in place, which is as it should be
            if version not in (-1, gradient._version) and found_inf is None:
                gradient = self._as_it_was(i, gradient)
            buffer = self._buffer(i) if had_buffer else None
            tensors = [t for t in (weight, gradient, buffer) if t is not None]
            if self._units.is_sharded:
                tensors = [local(t) for t in tensors]
            per_row = self.per_filter and (self._filtered is None or i in self._filtered)
            before, after, gradients, *buffers = as_vectors([self._copies[i], *tensors], per_row)
            steps.append((before, after, gradients, buffers[0] if buffers else None))
            sample.weights.append(i)
            sample.counts.append(len(before) if per_row else 1)
            sample.lr.append(_as_it_is_now(group["lr"]))
            sample.weight_decay.append(_as_it_is_now(group.get("weight_decay", 0.0)))
            state = optimizer.state.get(weight, {})
            sample.rescale.append(state.get(RESCALE_KEY, 1.0))
            sample.angle_factor.append(_as_it_is_now(state.get(ANGLE_FACTOR_KEY, 1.0)))
            sample.momentum.append(self._momenta[self._units.group_of[i]])
            sample.had_buffer.append(had_buffer)
        sums = fused_step_sums(steps)
        if self._units.is_sharded:
            sum_over_shards(sums, [self._units.weights[i] for i in sample.weights])
        self._ring.put(sample, sums)

    def _as_it_was(self, index: int, gradient: Tensor) -> Tensor:
        """The gradient before the optimizer changed it in place.

        ``torch.optim.SGD(nesterov=True, foreach=True)`` without weight decay leaves
        g + αv in it; what another optimizer left is not known: NaN.
        """
        group, buffer = self.param_group(index), self._buffer(index)
        if type(self.optimizer) is torch.optim.SGD and group["nesterov"] and buffer is not None:
            return gradient - group["momentum"] * buffer
        return torch.full_like(gradient, torch.nan)

    def detach(self) -> None:
        """Remove the hooks from the optimizer; what was measured stays readable."""
        self._around.remove()
        self._copies = {}
        self._measuring = False

    # -------------------------------------------------------------------------- reading

    def drain(self) -> dict[str, np.ndarray]:
        """Bring the waiting samples to the host and forget them.

        Returns:
            Columns of equal length, one entry per step and unit; see
            :func:`smd_hooks.measure.samples.sample_columns`. ``weight`` counts in
            :attr:`names`.
        """
        result = self._ring.read()
        self._ring.clear()
        return result

    def to_frame(self) -> pd.DataFrame:
        """Return the samples since the last :meth:`drain` in long form, and keep them.

        One row per step and unit, with the columns step, parameter, unit ("tensor",
        "filter 0", …, or "joint"), lr, weight_decay, weight_norm, gradient_norm, unit_gradient_norm
        (‖g‖·‖w‖), gradient_momentum_dot (⟨v₋₁, g⟩, v₋₁ the momentum buffer before the
        step; NaN for optimizers that are not known), radial_cosine, update_norm,
        radial_update (the part of the update along the weight) and angular_update
        (radians).
        """
        import pandas as pd

        frame = pd.DataFrame(self._ring.read())
        frame.insert(1, "parameter", [self.names[i] for i in frame.pop("weight")])
        joint = {self.names[i] for i in self.groups}
        frame["unit"] = [
            f"filter {unit}" if unit != WHOLE else "joint" if name in joint else "tensor"
            for name, unit in zip(frame["parameter"], frame["unit"], strict=True)
        ]
        frame.insert(
            frame.columns.get_loc("gradient_norm") + 1,
            "unit_gradient_norm",
            frame["gradient_norm"] * frame["weight_norm"],
        )
        return frame.drop(columns=["iteration", "rescale", "angle_factor"])


def _gradient(weight: Tensor) -> Tensor | None:
    """A sparse gradient is no gradient of the whole matrix."""
    return None if weight.grad is None or weight.grad.is_sparse else weight.grad


def _version(weight: Tensor) -> int:
    """How often the gradient was changed in place; -1 where it has no gradient."""
    gradient = _gradient(weight)
    return -1 if gradient is None else gradient._version


def _as_it_is_now(value: Any) -> Any:
    """A learning rate that is a tensor changes in place; reading it would wait for the device."""
    return value.clone() if isinstance(value, Tensor) else value
