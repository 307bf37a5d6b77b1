"""Judges runs by the stages of their schedules, and says in a line what it went by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from statistics import median

from ..diagnosis.causes import NORM_DECAY
from .claim import CannotTell, Experiment, Finding
from .evidence import Evidence, evidence
from .stage_ends import BAND, POINTS, Agreement, Numbers

LATE = 2
"""Stages at the end of the papers' schedules that are over long before they have relaxed."""
BELOW = 1 - POINTS
"""What Δ/Δ* is under where a stage ends below equilibrium."""

Check = Callable[[Experiment], Finding]
Criterion = Callable[[Evidence], bool]
Said = Callable[[Sequence[Evidence]], str]


def every(roles: tuple[str, ...], holds: Criterion, said: Said) -> Check:
    """Return a check of all runs of some roles: one that does not hold is enough."""

    def check(experiment: Experiment) -> Finding:
        told, all_hold = [], True
        for role in roles:
            found = experiment.facts(role, evidence)
            _need_predictions(role, (f.invariant for f in found))
            all_hold &= all(map(holds, found))
            told.append(f"{role}: {said(found)}" if len(roles) > 1 else said(found))
        return Finding("; ".join(told), all_hold)

    return check


def _need_predictions(role: str, agreements: Iterable[Agreement]) -> None:
    if not all(a.measured for a in agreements):
        raise CannotTell(f"{role}: a run has no scale-invariant weight with a prediction")


def closed_form_holds(found: Evidence) -> bool:
    """Whether all stages but the first end near their closed form."""
    return found.invariant.within(found.invariant.closed_form)


def closed_form_fails(found: Evidence) -> bool:
    """Whether one of them does not.

    Raises:
        CannotTell: There are no such stages, or it is not known how one of them ends.
    """
    _need_stages(found.invariant)
    return not closed_form_holds(found)


def _need_stages(agreement: Agreement) -> None:
    """Let nothing that is not known count as a miss."""
    off = agreement.off(agreement.closed_form)
    if not off or any(map(math.isnan, off)):
        raise CannotTell("it is not known how each stage after the first ends")


def drift_holds(found: Evidence) -> bool:
    """Whether they end near their drift-corrected form."""
    return found.invariant.follows(found.invariant.drift_corrected)


def late_are_below(found: Evidence) -> bool:
    """Whether the last stages end below equilibrium."""
    late = found.invariant.measured[1:][-LATE:]
    return len(late) == LATE and all(ratio < BELOW for ratio in late)


def half_way_holds(found: Evidence) -> bool:
    """Whether the middle of stage 2 is near its closed form."""
    measured, form = found.invariant.half_way
    return abs(measured - form) <= POINTS


def in_equilibrium_half_way(found: Evidence) -> bool:
    """Whether Δ/Δ* is not below equilibrium in the middle of stage 2.

    Raises:
        CannotTell: It is not known.
    """
    measured, _ = found.invariant.half_way
    if math.isnan(measured):
        raise CannotTell("a run has no samples in the middle of stage 2")
    return measured >= BELOW


def rescaled_beside(plain: str) -> Check:
    """Return a check that rescaled runs are in equilibrium, and nearer to it than plain ones."""

    def check(experiment: Experiment) -> Finding:
        found = experiment.by_seed("rescaled", evidence)
        beside = experiment.by_seed(plain, evidence)
        if not found.keys() <= beside.keys():
            raise CannotTell(f"not every rescaled seed has its {plain} run")
        pairs = [(f.invariant, beside[seed].invariant) for seed, f in found.items()]
        for role, side in zip(("rescaled", plain), zip(*pairs, strict=True), strict=True):
            _need_predictions(role, side)
        holds = all(
            all(BAND[0] <= ratio <= BAND[1] for ratio in ours.measured) and nearer(ours, theirs)
            for ours, theirs in pairs
        )
        ours, theirs = ([a.measured for a in side] for side in zip(*pairs, strict=True))
        return Finding(f"{stages(ours)}; {plain}: {stages(theirs)}", holds)

    return check


def nearer(rescaled: Agreement, plain: Agreement) -> bool:
    """Whether rescaling brought Δ/Δ* nearer to 1 in each late stage."""
    if not len(rescaled.measured) == len(plain.measured) > LATE:
        return False
    pairs = zip(rescaled.measured[-LATE:], plain.measured[-LATE:], strict=True)
    return all(abs(ours - 1) < abs(theirs - 1) for ours, theirs in pairs)


def no_drop_loses(experiment: Experiment) -> Finding:
    """Check that no drop of rescaled runs cost accuracy."""
    drops = [drop for f in experiment.facts("rescaled", evidence) for drop in f.drops]
    judged = [drop for drop in drops if drop is not None]
    if not drops or len(judged) < len(drops):
        raise CannotTell("not validated one step before and after each drop")
    told = ", ".join(f"{d.after - d.before:+.3g} (±{d.margin:.3g})" for d in judged)
    return Finding(f"accuracy at the drops: {told}", not any(drop.loses for drop in judged))


def others_fail(roles: tuple[str, ...]) -> Check:
    """Return a check that what is not scale-invariant is called so and misses theory."""
    judge = every(roles, lambda f: f.others_called and f.others_miss, say_others)

    def check(experiment: Experiment) -> Finding:
        for role in roles:
            found = experiment.facts(role, evidence)
            if not all(f.others.measured for f in found):
                raise CannotTell(f"{role}: a run has no decaying weight that no norm follows")
            for f in found:
                _need_stages(f.others)
        return judge(experiment)

    return check


def stages(runs: Sequence[Numbers], first: int = 1) -> str:
    """Say one number of each run per stage, from a stage on; and the median of several."""
    told = []
    for stage, values in enumerate(zip_longest(*runs, fillvalue=math.nan), start=1):
        if stage >= first:
            each = " ".join(f"{x:.3f}" for x in values)
            middle = f" (median {median(values):.3f})" if len(values) > 2 else ""
            told.append(f"stage {stage}: {each}{middle}")
    return ", ".join(told)


def say_closed_form(found: Sequence[Evidence]) -> str:
    """Δ/Δ* of each run, and the closed form, which runs of one schedule share."""
    measured = stages([f.invariant.measured for f in found], 2)
    return f"{measured} (theory {stages([found[0].invariant.closed_form], 2)})"


def say_drift_corrected(found: Sequence[Evidence]) -> str:
    """Δ/Δ* of each run, and the drift-corrected form of each."""
    measured = stages([f.invariant.measured for f in found], 2)
    return f"{measured} (theory {stages([f.invariant.drift_corrected for f in found], 2)})"


def say_late(found: Sequence[Evidence]) -> str:
    """Δ/Δ* of each run at the ends of the late stages."""
    last = max(len(f.invariant.measured) for f in found)
    return stages([f.invariant.measured for f in found], max(2, last - LATE + 1))


def say_half_way(found: Sequence[Evidence]) -> str:
    """Δ/Δ* of each run in the middle of stage 2, and the closed form."""
    told = " ".join(f"{f.invariant.half_way[0]:.3f}" for f in found)
    return f"{told} (theory {found[0].invariant.half_way[1]:.3f})"


def say_law(found: Sequence[Evidence]) -> str:
    """Errors of the law."""
    return _errors(f.invariant for f in found)


def say_law_alone(found: Sequence[Evidence]) -> str:
    """Errors of the law fed with ‖g̃‖² alone, and with h̃."""
    return f"{_errors(f.gradient_alone for f in found)} (with h̃ {say_law(found)})"


def say_drift_and_law(found: Sequence[Evidence]) -> str:
    """Say both."""
    return f"{say_drift_corrected(found)}; law {say_law(found)}"


def say_law_and_causes(found: Sequence[Evidence]) -> str:
    """Errors of the law, and how many layers' diagnosis is decay on norm parameters."""
    named = sum(cause == NORM_DECAY for f in found for cause in f.causes)
    return f"law {say_law(found)}; layers so diagnosed: {named}"


def say_others(found: Sequence[Evidence]) -> str:
    """z² of what is not scale-invariant, and its Δ/Δ* and law as if it were."""
    z2 = min(f.others_z2 for f in found)
    laws = ", ".join(f"{f.others.law_median:.2f}" for f in found)
    return f"z² from {z2:.2g}, {stages([f.others.measured for f in found])}, law {laws}"


def _errors(agreements: Iterable[Agreement]) -> str:
    return ", ".join(f"{a.law_median:.3f} worst {a.law_worst:.3f}" for a in agreements)
