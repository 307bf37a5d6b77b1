"""What claims about schedules with drops go by, of one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ...theory import SGDRule
from ..agreement.blocks import predictable
from ..reading.run import Run
from .control import as_if_invariant, not_invariant
from .drops import Drop, around_drops
from .stage_ends import NOTHING, Agreement, agreement

Z2_LIMIT = 1e-2
"""z² beyond which a weight is not scale-invariant, as :mod:`smd_hooks.measure` has it."""


@dataclass(frozen=True)
class Evidence:
    """What a run's records say, seen from every side.

    Attributes:
        invariant: Of the scale-invariant weights.
        gradient_alone: The same, with the law fed with ‖g̃‖² instead of h̃; nothing for rules
            other than SGD's, whose h̃ does not know the gradient's size.
        others: What is not scale-invariant, scored as if it were.
        others_z2: The smallest radial statistic of those; NaN without any, or where unknown.
        causes: What the diagnosis names, one cause per layer.
        drops: What each drop of the learning rate did to the accuracy.
    """

    invariant: Agreement
    gradient_alone: Agreement
    others: Agreement
    others_z2: float
    causes: tuple[str, ...]
    drops: tuple[Drop | None, ...]

    @property
    def others_called(self) -> bool:
        """Whether there are weights that were called not scale-invariant, by a clear z²."""
        return self.others_z2 > Z2_LIMIT

    @property
    def others_miss(self) -> bool:
        """Whether those were scored as if they were, and miss both forms and the law."""
        there = len(self.others.measured) > 1 and not math.isnan(self.others.law_median)
        return there and not (
            self.others.within(self.others.closed_form)
            or self.others.follows(self.others.drift_corrected)
            or self.others.law_holds
        )


def evidence(run: Run) -> Evidence:
    """Judge a run's records."""
    samples, weights = run.samples, run.weights
    if not len(samples) or "scale_invariant" not in weights:
        return Evidence(NOTHING, NOTHING, NOTHING, math.nan, (), ())
    others = not_invariant(weights)
    alone = NOTHING
    if all(isinstance(rule, SGDRule) for _, _, rule in predictable(weights)):
        alone = agreement(samples.assign(gradient_momentum_dot=0.0), weights)
    return Evidence(
        invariant=agreement(samples, weights),
        gradient_alone=alone,
        others=agreement(samples, as_if_invariant(weights, others)),
        others_z2=smallest_z2(weights, others),
        causes=tuple(run.diagnosis["cause"]),
        drops=around_drops(run),
    )


def smallest_z2(weights: pd.DataFrame, chosen: Sequence[bool]) -> float:
    """Return the smallest radial statistic of some weights; NaN if one is not known."""
    statistic = pd.to_numeric(weights.loc[list(chosen), "statistic"], errors="coerce")
    return float(statistic.min(skipna=False))
