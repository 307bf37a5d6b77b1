"""How large an optimizer's first step is beside those that follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..diagnosis.diagnose import is_unit
from ..reading.run import Run

Steps: TypeAlias = NDArray[np.floating]
Places: TypeAlias = NDArray[np.bool_]
SAME_LR = 1e-3
"""Relative change of a learning rate that is none."""
SETTLED = 20
"""Steps after which running means with β up to .95 hardly know how they began: on random
gradients AdamW's updates are within 15 % of their final size then."""


def first_update(run: Run) -> float | None:
    """How much larger the first update is than later ones, median of the matrices.

    ℓ2 norm of the update at step 0 over its RMS in the middle third of the steps that follow
    at the same learning rate, for updates shrink with it. On random gradients AdamW without a
    warmup comes to √((1 + β₁)/(1 − β₁)), 4.4 at β₁ = .9: at first its step is the sign of a
    gradient, later a mean in which gradients cancel.

    None if no matrix was measured at step 0, or that third begins before step
    :data:`SETTLED` or was not measured.
    """
    return _against_the_middle(run, lambda steps, end: steps == 0)


def later_update(run: Run) -> float | None:
    """Do the same of the first update after that middle third: the control, 1 but for noise."""
    return _against_the_middle(run, lambda steps, end: _first(steps >= 2 * end / 3))


def _first(chosen: Places) -> Places:
    return chosen & (np.cumsum(chosen) == 1)


def _against_the_middle(run: Run, choose: Callable[[Steps, float], Places]) -> float | None:
    if not len(run.samples):
        return None
    units = [is_unit(entry) for entry in run.weights.to_dict("records")]
    kept = run.samples[np.array(units)[run.samples["weight"]]]
    ratios = []
    for _, frame in kept.groupby("weight"):
        steps, lr, norms = (frame[name].to_numpy(float) for name in ("step", "lr", "update_norm"))
        changed = np.flatnonzero(np.abs(lr - lr[0]) > SAME_LR * lr[0])
        end = steps[changed[0]] if len(changed) else steps[-1] + 1
        middle, one = (steps >= end / 3) & (steps < 2 * end / 3), choose(steps, end) & (steps < end)
        if steps[0] == 0 and end / 3 >= SETTLED and middle.any() and one.any():
            ratios.append(norms[one][0] / np.sqrt((norms[middle] ** 2).mean()))
    return float(np.median(ratios)) if ratios else None
