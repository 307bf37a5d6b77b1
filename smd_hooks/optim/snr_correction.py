"""A correction of LionAR's angles for the gradients' signal-to-noise ratio.

Kosson et al., *Analyzing & Reducing the Need for Learning Rate Warmup in GPT Training*, §6,
arXiv 2410.23922. The paper's formula and its estimator could not be read in full: both are
our derivation, see :func:`smd_hooks.theory.snr_step_factor`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed
from torch.optim import Optimizer

from ..measure.gradient_noise import GradientNoiseProbe
from ..measure.stepping import AroundStep
from ..theory import snr_step_factor
from .sphere_optimizer import SphereOptimizer
from .state import ANGLE_FACTOR
from .turning import turns

AVERAGED = 10
"""Measured steps over which signal and noise are averaged; fewer, while there are fewer."""
LEAST_NOISE = 1e-9
"""Noise over signal, at least: single estimates may be negative."""


class SNRCorrection:
    """Multiplies the angle of each rotational weight by s(φ), measured as training goes.

    A step of fixed angle moves a layer's outputs the more, the more the examples of its
    batch agree. At the start of training they do: φ, the signal-to-noise ratio of single
    examples' gradients, is far above 1/B, and the same angle then does several times as much.
    s(φ) keeps what it does to outputs at what it does while noise rules; it is what a
    warmup is for. For LionAR, and any other optimizer of this package that turns weights.

    φ is measured for each weight, at every ``interval``-th step from the first one on, and
    acts on that same step: the first step is corrected already. Signal and noise are means
    over the last :data:`AVERAGED` measurements. Where the mean signal is not positive, too
    weak to be told from noise, s is 1. Each measured step waits for the device once, and
    all-reduces the gradients over processes, which so come to the same factors.

    The factors are in ``optimizer.state[p]["angle_factor"]`` and go with its checkpoints;
    :meth:`memory` is what a resumed run needs beside them.

    Args:
        optimizer: The optimizer.
        named_parameters: ``model.named_parameters()``.
        batch_size: B, examples of a whole step: of all micro-batches and processes.
        micro_batches: Backward passes per step, on each process. With the processes they
            must make two batches or more, since noise shows in their differences.
        layers: Names of modules, or shell-style patterns of them, whose weights are corrected.
        interval: Optimizer steps between measurements.
        memory: What :meth:`memory` returned before a resume.

    Raises:
        ValueError: The optimizer turns no weights by a set angle, a pattern matches none of
            them, there is one batch only, or they do not have ``batch_size`` examples
            together.

    Example::

        correction = SNRCorrection(
            optimizer, model.named_parameters(), batch_size=480, micro_batches=4
        )
        for step in range(steps):
            for x, y in micro_batches(step):  # 4 of 120
                (loss_function(model(x), y) / 4).backward()
            optimizer.step()
            optimizer.zero_grad()
    """

    def __init__(
        self,
        optimizer: Optimizer,
        named_parameters: Iterable[tuple[str, Tensor]],
        batch_size: int,
        micro_batches: int = 1,
        layers: str | Iterable[str] = "*",
        interval: int = 10,
        memory: Mapping[str, Any] | None = None,
    ) -> None:
        memory = memory or {"steps": 0, "recent": {}}
        named = {id(parameter): (name, parameter) for name, parameter in named_parameters}
        turned = [
            named[id(p)]
            for group in optimizer.param_groups
            for p in group["params"]
            if id(p) in named and _is_turned(optimizer, group, p)
        ]
        if not turned:
            raise ValueError(
                f"SNRCorrection: {type(optimizer).__name__} turns no weight by a set angle, so "
                "there is nothing to correct; use LionAR with weight decay or an angle"
            )
        self.optimizer = optimizer
        self.batch_size = batch_size
        self._parameters = dict(turned)
        self._probe = GradientNoiseProbe(
            optimizer,
            turned,
            layers,
            interval,
            _examples_per_pass(batch_size, micro_batches),
            first_step=memory["steps"],
        )
        self._steps: int = memory["steps"]
        self._recent: dict[str, deque[tuple[float, float]]] = {
            name: deque(map(tuple, pairs), AVERAGED) for name, pairs in memory["recent"].items()
        }
        # after the probe's own hook, which measures this very step
        self._around = AroundStep(optimizer, self._before_step)

    def memory(self) -> dict[str, Any]:
        """Return what a checkpoint must keep beside the optimizer's state."""
        return {"steps": self._steps, "recent": {n: list(p) for n, p in self._recent.items()}}

    def factors(self) -> dict[str, float]:
        """Return the factors that there are by now, by the weights' names; reads the device."""
        states = {n: self.optimizer.state.get(p, {}) for n, p in self._parameters.items()}
        return {
            n: float(state[ANGLE_FACTOR]) for n, state in states.items() if ANGLE_FACTOR in state
        }

    def detach(self) -> None:
        """Correct no more: angles are as set again."""
        self._around.remove()
        self._probe.detach()
        for parameter in self._parameters.values():
            self.optimizer.state.get(parameter, {}).pop(ANGLE_FACTOR, None)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._steps += 1
        if not len(self._probe):
            return
        columns = self._probe.drain()
        told = (columns[name].tolist() for name in ("parameter", "signal", "noise"))
        for name, signal, noise in zip(*told, strict=True):
            recent = self._recent.setdefault(name, deque(maxlen=AVERAGED))
            recent.append((signal, noise))
            parameter = self._parameters[name]
            fan_in = parameter.numel() / parameter.shape[0]
            factor = step_factor(recent, self.batch_size, fan_in)
            # a new tensor, since probes may keep the old one
            optimizer.state[parameter][ANGLE_FACTOR] = torch.tensor(
                factor, dtype=torch.float32, device=parameter.device
            )


def step_factor(estimates: Iterable[tuple[float, float]], batch_size: int, fan_in: float) -> float:
    """Return s(φ) of the mean signal over the mean noise, 1 where no signal is seen.

    Args:
        estimates: Of ‖ḡ‖² and E‖gᵢ − ḡ‖², see :func:`smd_hooks.theory.two_batch_estimate`.
        batch_size: B, examples of a step.
        fan_in: C, inputs of an output.

    >>> round(step_factor([(0.01, 1.0)], 480, 768), 3)
    0.505
    >>> step_factor([(-0.01, 1.0)], 480, 768)
    1.0
    """
    signal, noise = (math.fsum(parts) for parts in zip(*estimates, strict=True))
    if not signal > 0:
        return 1.0
    return snr_step_factor(signal / max(noise, LEAST_NOISE * signal), batch_size, fan_in)


def _is_turned(optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor) -> bool:
    return isinstance(optimizer, SphereOptimizer) and optimizer.rotates and turns(group, parameter)


def _examples_per_pass(batch_size: int, micro_batches: int) -> int:
    parallel = distributed.is_available() and distributed.is_initialized()
    processes = distributed.get_world_size() if parallel else 1
    batches = micro_batches * processes
    if batches < 2:
        raise ValueError(
            "SNRCorrection: one batch per step does not show its noise; accumulate gradients over "
            "2 micro-batches or more, or train on several processes"
        )
    if batch_size < batches or batch_size % batches:
        raise ValueError(
            f"SNRCorrection: batch_size={batch_size} examples cannot be {micro_batches} "
            f"micro-batches of equal size on each of {processes} processes"
        )
    return batch_size // batches
