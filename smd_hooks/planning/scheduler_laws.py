"""What MMEngine's schedulers do to a learning rate, as arrays: rate ← a·rate + b at each tick.

Stepping the schedulers themselves takes microseconds per iteration, which is seconds for one
that acts at every iteration of a training. Each law here is that of a ``_get_value``, which
it is told apart by: a subclass with its own has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Law = Callable[[Any, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From a scheduler, its own step numbers (ticks, 1) and base rates (lrs,) to a and b."""


def _factor(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return a, np.zeros_like(a)


def _towards(lowest: Any, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is above the lowest rate is multiplied by a."""
    return a, lowest * (1 - a)


def _multi_step(s: Any, t: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    times = np.vectorize(lambda tick: s.milestones[tick], otypes=[float])(t)
    return _factor(s.gamma**times)


def _step(s: Any, t: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _factor(np.where((t > 0) & (t % s.step_size == 0), s.gamma, 1.0))


def _constant(s: Any, t: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a = np.where(t == 0, s.factor, 1.0)
    return _factor(np.where((t == s.total_iters) & (t > 0), 1 / s.factor if s.factor else 1, a))


def _exponential(s: Any, t: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _factor(np.where(t == 0, 1.0, s.gamma))


def _linear(s: Any, t: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    slope = s.end_factor - s.start_factor
    before = s.total_iters * s.start_factor + (t - 1) * slope
    return _factor(np.where(t == 0, s.start_factor, 1 + slope / np.where(t == 0, 1.0, before)))


def _cosine(s: Any, t: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ratio = getattr(s, "eta_min_ratio", None)
    lowest = s.eta_min if ratio is None else base * ratio
    turns = (t > 0) & ((t - 1 - s.T_max) % (2 * s.T_max) == 0)  # at the lowest rate, where 0/0
    still = turns | (t == 0)
    before = np.where(still, 1.0, 1 + np.cos(np.pi * (t - 1) / s.T_max))
    a, b = _towards(lowest, np.where(still, 1.0, (1 + np.cos(np.pi * t / s.T_max)) / before))
    return a, np.where(turns, (base - lowest) * (1 - np.cos(np.pi / s.T_max)) / 2, b)


def _poly(s: Any, t: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left = np.where(t == 0, np.inf, s.total_iters - t + 1.0)
    return _towards(s.eta_min, (1 - 1 / left) ** s.power)


def _quadratic(s: Any, t: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(t == 0, 0.0, 1.0), base * (2 * t + 1) / s.total_iters**2


LAWS: dict[str, Law] = {
    "MultiStepParamScheduler": _multi_step,
    "StepParamScheduler": _step,
    "ConstantParamScheduler": _constant,
    "ExponentialParamScheduler": _exponential,
    "LinearParamScheduler": _linear,
    "CosineAnnealingParamScheduler": _cosine,
    "PolyParamScheduler": _poly,
    "QuadraticWarmupParamScheduler": _quadratic,
}
_ONLY_AT: dict[str, Callable[[Any], Any]] = {
    "MultiStepParamScheduler": lambda s: list(s.milestones),
    "StepParamScheduler": lambda s: range(s.step_size, s.end - s.begin, s.step_size),
    "ConstantParamScheduler": lambda s: [s.total_iters],
}


def law_of(scheduler: Any) -> str:
    """Name of the law by which a scheduler changes the rate; empty if it is none of these."""
    owner = next(k for k in type(scheduler).__mro__ if "_get_value" in vars(k))
    is_theirs = owner.__module__.startswith(("mmengine.", "mmdet."))
    return owner.__name__ if is_theirs and owner.__name__ in LAWS else ""


def ticks_of(scheduler: Any, last: int) -> np.ndarray:
    """Values of a scheduler's own counter, from 1 to ``last``, at which it may change the rate."""
    first = max(scheduler.begin, 1)  # 0 has passed when it was built
    only_at = _ONLY_AT.get(law_of(scheduler))
    if only_at is None:
        return np.arange(first, last + 1)
    ticks = np.array(sorted({0, *only_at(scheduler)})) + scheduler.begin
    return ticks[(ticks >= first) & (ticks <= last)]


def changes_of(scheduler: Any, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a and b of a scheduler that has a law, each of shape (ticks, lrs)."""
    base = np.array(scheduler.base_values)
    a, b = LAWS[law_of(scheduler)](scheduler, (ticks - scheduler.begin)[:, None], base)
    shape = (len(ticks), len(base))
    return np.broadcast_to(a, shape), np.broadcast_to(b, shape)
