"""What Wan et al., *Spherical Motion Dynamics*, claim: Fig. 2, 3 and 4."""

from __future__ import annotations

from . import constant_rate
from .claim import CannotTell, Claim, Experiment, Finding
from .dips import AFTER_THE_DROP, AT_ONCE, second_stage
from .spread import CONFIDENCE, Interval, mean_interval
from .stage_claims import drifting_controls, stage_claims

PAPER = "Wan et al., Spherical Motion Dynamics"
FIG3, FIG4 = f"{PAPER}, Fig. 3", f"{PAPER}, Fig. 4"
RISES = 1.5
"""Δ/Δ* at the end of a stage, over that at its start, from which on it rises."""
SEEDS = 5


def _dip(experiment: Experiment, role: str) -> Interval:
    dips = [found.dip for found in experiment.facts(role, second_stage)]
    known = [dip for dip in dips if dip is not None]
    if len(known) < len(dips):
        raise CannotTell(f"{role}: not validated at both ends of stage 2")
    return mean_interval(known)


def _sgdm_dips(experiment: Experiment) -> Finding:
    dip = _dip(experiment, "sgdm")
    return Finding(f"sgdm: {dip}", dip.low > 0)


def _others_do_not(experiment: Experiment) -> Finding:
    dips = {role: _dip(experiment, role) for role in ("rescaled", "adam")}
    told = "; ".join(f"{role}: {dip}" for role, dip in dips.items())
    return Finding(told, all(dip.low <= 0 for dip in dips.values()))


def _angles_rise(experiment: Experiment) -> Finding:
    rises: dict[str, list[float]] = {}
    for role in ("sgdm", "rescaled"):
        found = [f.rise for f in experiment.facts(role, second_stage)]
        rises[role] = [rise for rise in found if rise is not None]
        if len(rises[role]) < len(found):
            raise CannotTell(f"{role}: a run has no second stage with a prediction")
    told = "; ".join(f"{r}: {' '.join(f'{x:.2f}' for x in found)}" for r, found in rises.items())
    holds = all(x > RISES for x in rises["sgdm"]) and all(x <= RISES for x in rises["rescaled"])
    return Finding(f"end over start, {told}", holds)


_MEASURE = (
    f"{CONFIDENCE:.0%} confidence interval, over seeds, of the mean accuracy in the first "
    f"{AT_ONCE:.0%} to {AFTER_THE_DROP:.0%} of stage 2 minus that in its last third, in points"
)
DIPS = (
    Claim(
        "smd-fig4-dip",
        "SGDM's test accuracy dips in the second stage.",
        *(FIG4, "smd-fig4"),
        f"{_MEASURE}: above 0",
        ("sgdm",),
        _sgdm_dips,
        seeds=SEEDS,
    ),
    Claim(
        "smd-fig4-no-dip",
        "With weights rescaled at the drop, or with Adam, it does not dip.",
        *(FIG4, "smd-fig4"),
        f"{_MEASURE}: not above 0 for either",
        ("rescaled", "adam"),
        _others_do_not,
        seeds=SEEDS,
    ),
    Claim(
        "smd-fig4-angle",
        "In the second stage SGDM's angular update rises; rescaled, it is there at once.",
        *(FIG4, "smd-fig4"),
        f"median layer's Δ/Δ* at the end of stage 2 over that at its start: above {RISES:g} for "
        "sgdm, not for rescaled, each seed",
        ("sgdm", "rescaled"),
        _angles_rise,
        seeds=SEEDS,
    ),
)
CLAIMS = (
    *constant_rate.CLAIMS,
    *stage_claims("smd-fig3-imagenet", FIG3, seeds=3),
    *drifting_controls("smd-fig3-imagenet", FIG3),
    *stage_claims("smd-fig3-coco", FIG3, arrives=False),
    *DIPS,
)
