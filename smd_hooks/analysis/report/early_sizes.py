"""How large the first updates are, in four measures: their course over the layers of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..reading.run import Run

SHARE = 0.1
"""Of the training, from its start."""
POINTS = 200
"""Steps that are kept of a course, at most."""
BAND = (0.1, 0.9)
"""Quantiles of the layers that a band lies between."""
MEASURES = {
    "update_norm": "ℓ2 norm of the update",
    "angular_update": "angular update [rad]",
    "relative_representation_change": "relative representation change",
    "signal_to_noise": "SNR φ (critical batch 1/φ)",
}
"""Columns of the size measures that are shown, and what they are called."""


@dataclass(frozen=True)
class Course:
    """One measure at the start of a run, as quantiles over its layers.

    Attributes:
        steps: Optimizer steps, ascending.
        median: Median of the layers at each step.
        low: Their 10th percentile.
        high: Their 90th.
    """

    steps: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class EarlySizes:
    """The size measures at the start of a run.

    Attributes:
        end: Optimizer steps that are :data:`SHARE` of the training.
        layers: Weight matrices that any of it was measured of.
        courses: By the measure's column; without those that were not measured.
    """

    end: float
    layers: int
    courses: dict[str, Course]


def early_sizes(run: Run) -> EarlySizes:
    """Return how large a run's updates are over the first tenth of its training.

    Values that are not positive are left out, as a logarithmic axis leaves them: a warmup's
    first step may be at a learning rate of 0.

    Args:
        run: A run that finished; :attr:`Run.size_measures` is what is read of it.
    """
    measures = run.size_measures
    end = SHARE * _training_steps(run, measures)
    early = measures[measures["step"] < end]
    found = {name: _course(early, name) for name in MEASURES}
    courses = {name: course for name, course in found.items() if len(course.steps)}
    return EarlySizes(end, early["parameter"].nunique(), courses)


def _training_steps(run: Run, measures: pd.DataFrame) -> float:
    """Optimizer steps of the whole run: fewer than iterations where gradients accumulate."""
    if not len(run.samples):
        return float(measures["step"].max() + 1) if len(measures) else 0.0
    last = run.samples.loc[run.samples["step"].idxmax()]
    return max(run.iterations, last["iteration"] + 1) * (last["step"] + 1) / (last["iteration"] + 1)


def _course(early: pd.DataFrame, name: str) -> Course:
    known = early[early[name] > 0]  # NaN is not
    steps = np.unique(known["step"].to_numpy())
    if len(steps) > POINTS:
        steps = steps[np.linspace(0, len(steps) - 1, POINTS).round().astype(int)]
        known = known[known["step"].isin(steps)]
    if not len(steps):
        return Course(*[np.empty(0)] * 4)
    of_step = known.groupby("step")[name]  # sorted by step
    low, median, high = (of_step.quantile(q).to_numpy() for q in (BAND[0], 0.5, BAND[1]))
    return Course(steps, median, low, high)
