"""Claims about a schedule that drops its learning rate: who gets to equilibrium, and when.

Spherical Motion Dynamics makes them of SGD on ImageNet and COCO; they are asked of any
optimizer with an equilibrium, plainly and with weights rescaled at the drops.
"""

from __future__ import annotations

from dataclasses import replace

from ..diagnosis.causes import NORM_DECAY
from .claim import Claim
from .evidence import Z2_LIMIT, Evidence
from .stage_checks import (
    BELOW,
    LATE,
    closed_form_fails,
    closed_form_holds,
    drift_holds,
    every,
    half_way_holds,
    in_equilibrium_half_way,
    late_are_below,
    no_drop_loses,
    others_fail,
    rescaled_beside,
    say_closed_form,
    say_drift_and_law,
    say_drift_corrected,
    say_half_way,
    say_late,
    say_law,
    say_law_alone,
    say_law_and_causes,
)
from .stage_ends import BAND, LAW_MEDIAN, LAW_WORST, POINTS


def _law_holds(found: Evidence) -> bool:
    return found.invariant.law_holds


def stage_claims(
    experiment: str,
    source: str,
    derived: str,
    plain: str = "plain",
    *,
    seeds: int = 1,
    arrives: bool = True,
) -> tuple[Claim, ...]:
    """Return the claims about the stages of an experiment's schedule.

    Args:
        experiment: Its name.
        source: Where those are made that a paper makes.
        derived: What the others follow from.
        plain: The role that is not rescaled; the other one is ``rescaled``.
        seeds: Fewest seeds of both.
        arrives: Whether its second stage is long enough to arrive, so that its middle tells
            how it goes there.
    """
    both, claimed, about = (plain, "rescaled"), (source, experiment), (derived, experiment)
    half_way = Claim(
        f"{experiment}-half-way",
        "The second stage goes to its equilibrium as the relaxation law says.",
        *about,
        f"median layer's Δ/Δ* in the middle of stage 2 within {POINTS:g} of its closed form "
        "there, each seed",
        (plain,),
        every((plain,), half_way_holds, say_half_way),
        seeds,
    )
    return (
        *([half_way] if arrives else []),
        Claim(
            f"{experiment}-stage-ends",
            "After a drop Δ/Δ* follows the closed form [1 + (k − 1)·e^(−t/τ)]^(−½).",
            *about,
            f"median layer's Δ/Δ* within {POINTS:g} of its closed form, at the ends of all stages "
            "but the first, each seed",
            (plain,),
            every((plain,), closed_form_holds, say_closed_form),
            seeds,
        ),
        Claim(
            f"{experiment}-late-stages",
            f"The last {LATE} stages stay below equilibrium to their ends.",
            *claimed,
            f"median layer's Δ/Δ* below {BELOW:g} at the ends of the last {LATE} stages, each seed",
            (plain,),
            every((plain,), late_are_below, say_late),
            seeds,
        ),
        Claim(
            f"{experiment}-rescaled",
            "With weights rescaled at the drops every stage is in equilibrium to its end.",
            *claimed,
            f"median layer's Δ/Δ* in {BAND[0]:g} to {BAND[1]:g} at the end of every stage, and "
            f"nearer 1 than {plain}'s on the same seed in the last {LATE}, each seed",
            both,
            rescaled_beside(plain),
            seeds,
        ),
        Claim(
            f"{experiment}-drift",
            "What the closed form is off by is how the driving moment h̃ changed.",
            *about,
            f"median layer's Δ/Δ* within {POINTS:g} and {POINTS:.0%} of its drift-corrected form, "
            "at the ends of all stages but the first, each run: a consistency test",
            both,
            every(both, drift_holds, say_drift_corrected),
            seeds,
        ),
        Claim(
            f"{experiment}-law",
            "Norm and angle follow the trajectory law fed with measured moments.",
            *about,
            f"trajectory error at most {LAW_MEDIAN:g} (median layer, in the worst stage) and "
            f"{LAW_WORST:g} (worst layer, over the run), each run: a consistency test",
            both,
            every(both, _law_holds, say_law),
            seeds,
        ),
        Claim(
            f"{experiment}-drops",
            "Rescaling at a drop costs no accuracy: it leaves the function as it is.",
            *about,
            "no drop loses more than half a point, or than one of the steps just before it "
            "changed, each seed",
            ("rescaled",),
            no_drop_loses,
            seeds,
        ),
        Claim(
            f"{experiment}-control-classifier",
            "What no norm follows is not scale-invariant, and theory does not hold for it.",
            *about,
            f"z² above {Z2_LIMIT:g}; scored as if it were scale-invariant it misses closed form, "
            "drift-corrected form and law, each run",
            both,
            others_fail(both),
            seeds,
            is_control=True,
        ),
    )


def arrives_half_way(name: str, says: str, source: str, half_way: Claim) -> Claim:
    """Return the claim that stage 2 is in equilibrium by its middle, whatever the law says.

    Args:
        name: Its name.
        says: What is claimed.
        source: Where.
        half_way: The law's own claim about that time.
    """
    return replace(
        half_way,
        name=name,
        says=says,
        source=source,
        criterion=f"median layer's Δ/Δ* at least {BELOW:g} in the middle of stage 2, each seed",
        check=every(half_way.roles, in_equilibrium_half_way, say_half_way),
    )


def drifting_controls(experiment: str, derived: str) -> tuple[Claim, ...]:
    """Return the controls of replicas with gradients that vanish, and with decay on norms."""
    noise_free, norm_decay, about = ("noise-free",), ("norm-decay",), (derived, experiment)
    return (
        Claim(
            f"{experiment}-control-noise-free",
            "Without persistent gradient noise h̃ falls, and the closed form fails.",
            *about,
            f"some stage after the first ends more than {POINTS:g} from its closed form",
            noise_free,
            every(noise_free, closed_form_fails, say_closed_form),
            is_control=True,
        ),
        Claim(
            f"{experiment}-noise-free-law",
            "Even where h̃ falls, angles follow what is known of it.",
            *about,
            f"Δ/Δ* within {POINTS:g} and {POINTS:.0%} of its drift-corrected form, trajectory "
            f"error at most {LAW_MEDIAN:g} and {LAW_WORST:g}",
            noise_free,
            every(noise_free, lambda f: drift_holds(f) and _law_holds(f), say_drift_and_law),
        ),
        Claim(
            f"{experiment}-control-gradient-alone",
            "‖g̃‖² alone does not drive the norm where gradients align with the momentum.",
            *about,
            f"the law fed with ‖g̃‖² in place of h̃ errs by more than {LAW_MEDIAN:g} or "
            f"{LAW_WORST:g}, fed with h̃ by no more",
            noise_free,
            every(
                noise_free,
                lambda f: f.gradient_alone.law_breaks and f.invariant.law_holds,
                say_law_alone,
            ),
            is_control=True,
        ),
        Claim(
            f"{experiment}-control-norm-decay",
            "Decay on norm parameters ends scale invariance, and the diagnosis says so.",
            *about,
            f"trajectory error above {LAW_MEDIAN:g} or {LAW_WORST:g}, and the diagnosis of some "
            f"layer is '{NORM_DECAY}'",
            norm_decay,
            every(
                norm_decay,
                lambda f: f.invariant.law_breaks and NORM_DECAY in f.causes,
                say_law_and_causes,
            ),
            is_control=True,
        ),
    )
