"""Claims about a constant learning rate: norm and angle coincide with theory, and when."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ..agreement.windows import BAND
from .approach import MEAN_STEPS, Approach, approach
from .claim import CannotTell, Claim, Experiment, Finding
from .evidence import Z2_LIMIT
from .relaxation_fit import FITTED_TIMES, Rate, median_rate
from .stage_ends import LAW_WORST

EXPERIMENT = "smd-fig2"
PAPER = "Wan et al., Spherical Motion Dynamics"
SOURCE = f"{PAPER}, Fig. 2"
DERIVED = f"derived from {PAPER}, Theorem 2"
ROLES = ("sgd", "sgdm")
START = 2.0
"""Factor off its equilibrium, up or down, that a norm or an angle starts at, at least."""
DRIFT = 2 * BAND
"""Largest μτ of E‖g̃‖² ∝ e^(μt) that is slow: Δ is off Δ* by the factor √(1 + μτ), and so within
5 %."""
RATE = 0.15
"""Largest relative error of the ratio of two relaxation rates."""
SOONER = 0.5
"""Largest share of SGD's steps that SGDM may take to its equilibrium; from the same start it is
1 − α, a tenth."""


def _layers(experiment: Experiment, role: str, others: bool = False) -> list[pd.DataFrame]:
    found = experiment.facts(role, approach)
    tables = [f.others if others else f.layers for f in found]
    if not all(map(len, tables)):
        kind = "weight that is not scale-invariant" if others else "scale-invariant weight"
        raise CannotTell(f"{role}: a run has no {kind} that was measured under SGD")
    return tables


def _drifts_slowly(experiment: Experiment) -> Finding:
    medians = {r: [t["gradient_drift"].median() for t in _layers(experiment, r)] for r in ROLES}
    told = "; ".join(f"{role}: μτ {_numbers(values, '+.3f')}" for role, values in medians.items())
    return Finding(told, all(abs(value) <= DRIFT for v in medians.values() for value in v))


def _coincides(experiment: Experiment, quantity: str) -> Finding:
    told, holds = [], True
    for role in ROLES:
        tables = _layers(experiment, role)
        starts = [_times_off(table[f"{quantity}_start"]) for table in tables]
        ends = [table[f"{quantity}_end"].median() for table in tables]
        holds &= all(off >= START for off in starts) and all(abs(e - 1) <= BAND for e in ends)
        told.append(f"{role}: off by {_numbers(starts)} at first, {_numbers(ends, '.3f')} at last")
    return Finding("; ".join(told), holds)


def _times_off(ratios: pd.Series) -> float:
    """Factor by which the median layer is off, up or down."""
    return float(np.exp(np.log(ratios).abs().median()))


def _relaxes_faster(experiment: Experiment) -> Finding:
    rates = {role: _rate(experiment, role) for role in ROLES}
    sgd, sgdm = (rates[role] for role in ROLES)
    ratio, predicted = sgdm.value / sgd.value, sgdm.predicted / sgd.predicted
    error = ratio * math.hypot(sgd.error / sgd.value, sgdm.error / sgdm.value)
    told = (
        f"{ratio:.2f} ± {error:.2f} times (theory {predicted:.2f}); rates over 1/τ: "
        + ", ".join(
            f"{r} {x.value / x.predicted:.3f} ({x.layers} layers)" for r, x in rates.items()
        )
    )
    return Finding(told, abs(ratio / predicted - 1) <= RATE)


def _arrives_sooner(experiment: Experiment) -> Finding:
    medians = {role: _arrival(experiment, role) for role in ROLES}
    sgd, sgdm = (medians[role] for role in ROLES)
    told = ", ".join(
        f"{role} {steps:.0f} steps" if math.isfinite(steps) else f"{role} not within the run"
        for role, steps in medians.items()
    )
    if not math.isfinite(sgd):
        raise CannotTell(f"SGD's norms never arrive: {told}")
    return Finding(f"{told}: {sgdm / sgd:.3f} of them", sgdm <= SOONER * sgd)


def _arrival(experiment: Experiment, role: str) -> float:
    """Median steps until r* of the layers, of all runs, that began far above it."""
    return float(_far(experiment, role)["arrival"].fillna(math.inf).median())


def _rate(experiment: Experiment, role: str) -> Rate:
    """The median rate over those layers, of all runs, that began far above r*."""
    far = _far(experiment, role)
    return median_rate(far["rate"].to_numpy(), float(far["predicted_rate"].iloc[0]))


def _far(experiment: Experiment, role: str) -> pd.DataFrame:
    layers = pd.concat(_layers(experiment, role))
    far = layers[(layers["norm_start"] >= START) & layers["rate"].notna()]
    if not len(far):
        largest = layers["norm_start"].max()
        raise CannotTell(
            f"{role}: no layer starts at {START:g} r* or more, the largest at {largest:.2f}"
        )
    return far


def _classifier_misses(experiment: Experiment) -> Finding:
    told, called, broken = [], True, False
    for role in ROLES:
        found = experiment.facts(role, approach)
        norms = [t["norm_end"].median() for t in _layers(experiment, role, others=True)]
        angles = [t["angle_end"].median() for t in _layers(experiment, role, others=True)]
        laws = [f.others_law for f in found]
        called &= all(map(_called, found))
        broken |= all(law > LAW_WORST for law in laws)
        z2 = min(f.others_z2 for f in found)
        told.append(
            f"{role}: z² {z2:.2g}, law {_numbers(laws)} (r/r* {_numbers(norms, '.3f')}, "
            f"Δ/Δ* {_numbers(angles, '.3f')})"
        )
    return Finding("; ".join(told), called and broken)


def _called(found: Approach) -> bool:
    return found.others_z2 > Z2_LIMIT


def _misses(ratio: float) -> bool:
    """Whether a ratio is known and outside the band; NaN tells nothing."""
    return abs(ratio - 1) > BAND


def _plain_formula_misses(experiment: Experiment) -> Finding:
    tables = _layers(experiment, "sgdm")
    ratios = [table["plain_formula"].median() for table in tables]
    factor = (tables[0]["plain_formula"] / tables[0]["angle_end"]).median()  # Δ*/√(2ηλ)
    told = f"Δ/√(2ηλ) {_numbers(ratios, '.3f')} (theory {factor:.3f})"
    holds = all(_misses(x) and abs(x / factor - 1) <= BAND for x in ratios)
    return Finding(told, holds)


def _gradient_alone_misses(experiment: Experiment) -> Finding:
    tables = _layers(experiment, "sgdm")
    alone = [table["norm_end_gradient_alone"].median() for table in tables]
    ends = [table["norm_end"].median() for table in tables]
    told = f"r/r* of ‖g̃‖² {_numbers(alone, '.3f')}, of h̃ {_numbers(ends, '.3f')}"
    if all(abs(a / e - 1) <= BAND for a, e in zip(alone, ends, strict=True)):
        raise CannotTell(f"gradients are hardly aligned with the momentum, both agree: {told}")
    holds = all(map(_misses, alone)) and all(abs(end - 1) <= BAND for end in ends)
    return Finding(told, holds)


def _numbers(values: list[float], form: str = ".2f") -> str:
    return " ".join(format(value, form) for value in values)


CLAIMS = (
    Claim(
        "smd-fig2-gradient",
        "E‖g̃‖² changes slowly beside the relaxation of the norm; in the paper's plot it grows.",
        *(SOURCE, EXPERIMENT),
        f"|μτ| at most {DRIFT:g} for E‖g̃‖² ∝ e^(μt) over the last two thirds, median layer: "
        "so slow a drift leaves Δ within 5 % of Δ*",
        ROLES,
        _drifts_slowly,
    ),
    Claim(
        "smd-fig2-norm",
        "‖w‖ starts off its theoretical value, then coincides with it.",
        *(SOURCE, EXPERIMENT),
        f"median layer's r/r*, r* of the {MEAN_STEPS}-step mean of h̃: off by a factor of at "
        f"least {START:g} at first, within {BAND:.0%} over the last fifth",
        ROLES,
        lambda e: _coincides(e, "norm"),
    ),
    Claim(
        "smd-fig2-angle",
        "Δ starts off its theoretical value, then coincides with it.",
        *(SOURCE, EXPERIMENT),
        f"median layer's Δ/Δ*: off by a factor of at least {START:g} at first, within "
        f"{BAND:.0%} over the last fifth",
        ROLES,
        lambda e: _coincides(e, "angle"),
    ),
    Claim(
        "smd-fig2-faster",
        "SGD with momentum relaxes faster than SGD by the factor 1/(1 − α). With h̃ measured the "
        "fitted rates are a consistency test, SGD's an identity of scale invariance.",
        f"derived from {PAPER}, Theorems 1 and 2",
        EXPERIMENT,
        f"ratio of the rates fitted in the norm law within {RATE:.0%} of the predicted one: "
        f"median of the layers that start at {START:g} r* or more, over their first "
        f"{FITTED_TIMES:g} τ: a consistency test",
        ROLES,
        _relaxes_faster,
    ),
    Claim(
        "smd-fig2-sooner",
        "SGD with momentum gets to equilibrium sooner than SGD; from the same start in 1 − α of "
        "its steps.",
        *(SOURCE, EXPERIMENT),
        f"steps until r is within {BAND:.0%} of r*, median of the layers that start at {START:g} "
        f"r* or more: SGDM's at most {SOONER:g} of SGD's",
        ROLES,
        _arrives_sooner,
    ),
    Claim(
        "smd-fig2-control-classifier",
        "What no norm follows is not scale-invariant, and theory does not hold for it.",
        *(DERIVED, EXPERIMENT),
        f"z² above {Z2_LIMIT:g} in each run, and trajectory error above {LAW_WORST:g} with SGD or "
        "SGDM: at a constant rate anything that is stationary may come near one of them",
        ROLES,
        _classifier_misses,
        is_control=True,
    ),
    Claim(
        "smd-fig2-control-formula",
        "SGD's √(2ηλ) is not the angle of SGD with momentum.",
        *(DERIVED, EXPERIMENT),
        f"SGDM's Δ over the last fifth more than {BAND:.0%} off √(2ηλ), and within {BAND:.0%} of "
        "1/√(1 + α) times it, median layer",
        ("sgdm",),
        _plain_formula_misses,
        is_control=True,
    ),
    Claim(
        "smd-fig2-control-gradient-alone",
        "‖g̃‖² alone does not give r* where gradients align with the momentum.",
        DERIVED,
        EXPERIMENT,
        f"r more than {BAND:.0%} off the r* of ‖g̃‖² over the last fifth, and within {BAND:.0%} of "
        "that of h̃, median layer; says nothing where both r* agree",
        ("sgdm",),
        _gradient_alone_misses,
        is_control=True,
    ),
)
"""What Fig. 2 of Spherical Motion Dynamics shows."""
