"""What the replica's runs must show, and what its controls must fail to show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.control import as_if_invariant
from benchmarks.replica_accuracy import Drop, around_drops
from benchmarks.replica_agreement import (
    BAND,
    LAW_MEDIAN,
    LAW_WORST,
    NOTHING,
    POINTS,
    STAGES,
    Agreement,
    agreement,
)
from smd_hooks.analysis import Run, predict, score
from smd_hooks.analysis.diagnosis.diagnose import NORM_DECAY, diagnose
from smd_hooks.measure.invariance import Z2_LIMIT
from smd_hooks.theory import SGDRule, UpdateRule

CLASSIFIER = "network.fc.weight"


@dataclass(frozen=True)
class Evidence:
    """Everything that a run's criteria are judged by.

    Attributes:
        convs: Of the scale-invariant weights.
        gradient_alone: The same, with the law fed with ‖g̃‖² instead of h̃.
        classifier: The classifier scored as if it were scale-invariant.
        z2: Its radial statistic; NaN where unknown.
        called_invariant: What its verdict is.
        causes: What the diagnosis names, one cause per layer.
        drops: What the drops of the learning rate did to the accuracy.
        plain: For a rescaled run, its convs on the same seed without rescaling.
    """

    convs: Agreement
    gradient_alone: Agreement
    classifier: Agreement
    z2: float
    called_invariant: bool | None
    causes: tuple[str, ...]
    drops: tuple[Drop, ...] = ()
    plain: Agreement = NOTHING


def evidence(run: Run, plain: Run | None = None) -> Evidence:
    """Judge a run's records from every side.

    Args:
        run: The run.
        plain: The same without rescaling, for a run that is rescaled.
    """
    samples, weights = run.samples, run.weights
    if not len(samples) or "scale_invariant" not in weights:
        return Evidence(NOTHING, NOTHING, NOTHING, math.nan, None, ())
    is_classifier = weights["parameter"] == CLASSIFIER
    rule = UpdateRule.from_json(weights.loc[~is_classifier, "rule"].iloc[0])  # all have the same
    verdict = weights[is_classifier].to_dict("records")[0]

    def supposing(samples: pd.DataFrame, weights: pd.DataFrame) -> Agreement:
        predicted = predict(samples, weights)
        return agreement(predicted, score(predicted, weights), rule)

    alone = NOTHING  # of other rules than SGD's, h̃ does not know the gradient's size
    if isinstance(rule, SGDRule):
        alone = supposing(samples.assign(gradient_momentum_dot=0.0), weights)
    return Evidence(
        convs=agreement(run.predicted, run.scores, rule),
        gradient_alone=alone,
        classifier=supposing(samples, as_if_invariant(weights, is_classifier)),
        z2=float("nan" if verdict["statistic"] is None else verdict["statistic"]),
        called_invariant=verdict["scale_invariant"],
        causes=tuple(diagnose(run.predicted, run.scores, weights)["cause"]),
        drops=around_drops(run),
        plain=NOTHING if plain is None else agreement(plain.predicted, plain.scores, rule),
    )


Criterion = tuple[str, Callable[[Evidence], bool]]

LAW: Criterion = (
    f"law within {LAW_MEDIAN:g}, worst {LAW_WORST:g}",
    lambda e: e.convs.law_holds,
)
DRIFT_CORRECTED: Criterion = (
    f"Δ/Δ* within {POINTS:g} and {POINTS:.0%} of its drift-corrected form",
    lambda e: e.convs.follows(e.convs.drift_corrected),
)
CLOSED_FORM: Criterion = (
    f"Δ/Δ* within {POINTS:g} of its closed form",
    lambda e: e.convs.within(e.convs.closed_form),
)
IN_EQUILIBRIUM: list[Criterion] = [
    (
        f"Δ/Δ* in {BAND[0]:g} to {BAND[1]:g} at the end of every stage",
        lambda e: len(e.convs.measured) == STAGES and all(map(in_band, e.convs.measured)),
    ),
    (
        "Δ/Δ* nearer 1 than the plain run's on the same seed, at the ends of stages 3 and 4",
        lambda e: nearer_in_late_stages(e.convs, e.plain),
    ),
    (
        "no drop loses more top-1 than one of the four steps before it changed",
        lambda e: len(e.drops) == STAGES - 1 and not any(drop.loses for drop in e.drops),
    ),
]
PLAIN = [CLOSED_FORM, DRIFT_CORRECTED, LAW]
RESCALED = [*IN_EQUILIBRIUM, DRIFT_CORRECTED, LAW]
CLASSIFIER_CALLED: list[Criterion] = [
    (
        "classifier called not scale-invariant by z²",
        lambda e: e.called_invariant is False and e.z2 > Z2_LIMIT,
    ),
    (
        "control: the classifier, scored as if it were, misses both forms and the law",
        lambda e: (
            not (
                e.classifier.within(e.classifier.closed_form)
                or e.classifier.follows(e.classifier.drift_corrected)
                or e.classifier.law_holds
            )
        ),
    ),
]
NOISE_FREE: list[Criterion] = [
    (
        "control: closed form fails",
        lambda e: bool(e.convs.measured) and not e.convs.within(e.convs.closed_form),
    ),
    DRIFT_CORRECTED,
    LAW,
    (
        "control: the law fed with ‖g̃‖² alone breaks",
        lambda e: e.gradient_alone.law_breaks,
    ),
]
NORMS_DECAY: list[Criterion] = [
    (
        "control: law breaks",
        lambda e: e.convs.law_breaks,
    ),
    (f"the diagnosis names {NORM_DECAY}", lambda e: NORM_DECAY in e.causes),
]


def in_band(ratio: float) -> bool:
    """Whether Δ/Δ* counts as being in equilibrium."""
    return BAND[0] <= ratio <= BAND[1]


def nearer_in_late_stages(rescaled: Agreement, plain: Agreement) -> bool:
    """Whether rescaling brought Δ/Δ* nearer to 1 in both stages that end long before τ."""
    if not len(rescaled.measured) == len(plain.measured) == STAGES:
        return False
    pairs = zip(rescaled.measured[2:], plain.measured[2:], strict=True)
    return all(abs(ours - 1) < abs(theirs - 1) for ours, theirs in pairs)


def failures(criteria: list[Criterion], found: Evidence) -> list[str]:
    """Return those criteria that do not hold, in words."""
    return [name for name, holds in criteria if not holds(found)]


def row(run: Run, found: Evidence, failed: list[str]) -> dict[str, Any]:
    """Return the table's row of a run; empty where a stage was not reached."""
    result: dict[str, Any] = {
        "run": run.name,
        "accuracy/top1": run.scalars.metrics.get("accuracy/top1"),
    }
    for stage in range(STAGES):
        columns = [
            ("angle_ratio", found.convs.measured),
            ("closed_form", found.convs.closed_form),
            ("driving_moment", found.convs.driving_moment),
        ]
        if stage:  # what is drift-corrected begins at the end of the first one
            columns.insert(2, ("drift_corrected", found.convs.drift_corrected))
        for column, values in columns:
            result[f"{column}_{stage + 1}"] = values[stage] if stage < len(values) else None
    for number in range(1, STAGES):
        drop = found.drops[number - 1] if number <= len(found.drops) else None
        for column in ("before", "after", "margin"):
            result[f"top1_{column}_drop_{number}"] = None if drop is None else getattr(drop, column)
    return {
        **result,
        "closed_form_verdict": _said_of_the_closed_form(found.convs),
        "law_median": found.convs.law_median,
        "law_worst": found.convs.law_worst,
        "law_gradient_alone": found.gradient_alone.law_median,
        "classifier_z2": found.z2,
        "classifier_angle_ratios": " ".join(f"{x:.2f}" for x in found.classifier.measured),
        "classifier_law": found.classifier.law_median,
        "verdict": "holds" if not failed else "FAILS: " + "; ".join(failed),
    }


def _said_of_the_closed_form(convs: Agreement) -> str:
    """Where and by how much Δ/Δ* misses its closed form, whatever the setting asks."""
    if convs.within(convs.closed_form):
        return "holds"
    off = [
        f"{value:+.3f} at stage {stage}"
        for stage, value in enumerate(convs.off(convs.closed_form), start=2)
        if not abs(value) <= POINTS
    ]
    return f"misses: {', '.join(off) or 'a stage was not reached'}"
