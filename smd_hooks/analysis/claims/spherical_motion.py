"""What Wan et al., *Spherical Motion Dynamics*, claim: Fig. 2, 3 and 4."""

from __future__ import annotations

from . import constant_rate
from .claim import CannotTell, Claim, Experiment, Finding
from .constant_rate import DERIVED, PAPER
from .dips import AFTER_THE_DROP, AT_ONCE, second_stage
from .spread import CONFIDENCE, Interval, mean_interval
from .stage_claims import arrives_half_way, drifting_controls, stage_claims

FIG3, FIG4 = f"{PAPER}, Fig. 3", f"{PAPER}, Fig. 4"
RISES = 1.5
"""Δ/Δ* at the end of a stage, over that at its start, from which on it rises."""
SEEDS = 5


def _dips(experiment: Experiment, role: str) -> dict[int | None, float]:
    """Dips by seed."""
    dips = {seed: f.dip for seed, f in experiment.by_seed(role, second_stage).items()}
    known = {seed: dip for seed, dip in dips.items() if dip is not None}
    if len(known) < len(dips):
        raise CannotTell(f"{role}: not validated at both ends of stage 2")
    return known


def _sgdm_dips(experiment: Experiment) -> Finding:
    dip = mean_interval([*_dips(experiment, "sgdm").values()])
    return Finding(f"sgdm: {dip}", dip.low > 0)


def _others_dip_less(experiment: Experiment) -> Finding:
    dips = {role: _dips(experiment, role) for role in ("sgdm", "rescaled", "adam")}
    ours, *others = dips
    less: dict[str, Interval] = {}
    for role in others:
        if dips[role].keys() != dips[ours].keys():
            raise CannotTell(f"{role} and {ours} ran on other seeds")
        less[role] = mean_interval([dips[ours][seed] - dip for seed, dip in dips[role].items()])
    told = [f"{role}: {mean_interval([*by_seed.values()])}" for role, by_seed in dips.items()]
    told += [f"{ours} − {role}: {interval}" for role, interval in less.items()]
    return Finding("; ".join(told), all(interval.low > 0 for interval in less.values()))


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
        "With weights rescaled at the drop, or with Adam, it does not dip as SGDM's does.",
        *(FIG4, "smd-fig4"),
        f"{_MEASURE}; SGDM's minus theirs on the same seed: above 0 for both",
        ("sgdm", "rescaled", "adam"),
        _others_dip_less,
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
_HALF_WAY, *_OTHERS = stage_claims("smd-fig3-imagenet", FIG3, DERIVED, seeds=3)
_IMAGENET = (
    _HALF_WAY,
    arrives_half_way(
        "smd-fig3-imagenet-in-15-epochs",
        "The second stage, of 30 epochs, reaches its equilibrium within 15. The relaxation law "
        "says that Δ/Δ* is .83 by then: this is expected to fail.",
        FIG3,
        _HALF_WAY,
    ),
    *_OTHERS,
)
CLAIMS = (
    *constant_rate.CLAIMS,
    *_IMAGENET,
    *drifting_controls("smd-fig3-imagenet", DERIVED),
    *stage_claims("smd-fig3-coco", FIG3, DERIVED, arrives=False),
    *DIPS,
)
