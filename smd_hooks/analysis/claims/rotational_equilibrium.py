"""What Kosson et al., *Rotational Equilibrium*, claim; and what our optimizers must do."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..agreement.windows import BAND
from ..reading.run import Run
from .claim import CannotTell, Claim, Experiment, Finding, seed_of
from .drops import METRICS, validations
from .rotation import (
    FIRST_STEPS,
    OF_THE_PEAK,
    RELAXED,
    Rotation,
    Turning,
    imbalance,
    rotation,
    rotation_of_matrices,
    turning,
)
from .stage_claims import stage_claims
from .stage_ends import POINTS

PAPER = "Kosson et al., Rotational Equilibrium"
OURS = "ours"
ALIKE = 1.25
"""Largest ratio of the 95th to the 5th percentile of layers that turn alike."""
MARGIN = 1.0
"""Points of accuracy that are no loss."""
AT_FIRST = 0.35
"""How far angles may be off in the first tenth of a run: while AdamW's directions shrink, the
running mean of their squares lags behind, and 25 steps turn by three quarters of what is set."""
UNBALANCED = 3.0
"""Fastest layer over the slowest, from which on layers turn unequally."""
BALANCED = 1.5
"""Fastest over slowest, up to which all of them turn alike."""
NOT_INVARIANT_POINTS = 0.1
"""As :data:`POINTS`, for layers that are not scale-invariant: theory is approximate there."""


def implied_angle(
    name: str,
    experiment: str,
    roles: tuple[str, ...],
    *,
    every_matrix: bool = False,
) -> Claim:
    """Claim that layers turn by the angle that lr and weight decay imply, all alike."""
    points = NOT_INVARIANT_POINTS if every_matrix else POINTS
    measure: Callable[[Run], Rotation | None] = rotation_of_matrices if every_matrix else rotation

    def check(its: Experiment) -> Finding:
        told, holds = [], True
        for role in roles:
            for found in its.facts(role, measure):
                if found is None:
                    raise CannotTell(f"{role}: no layer with an implied angle ever relaxed")
                near = abs(found.ratio - found.expected) <= points
                holds &= near and (every_matrix or found.spread <= ALIKE)
                told.append(
                    f"{role}: {found.ratio:.3f} (theory {found.expected:.3f}) of up to "
                    f"{1e3 * found.peak_angle:.3g} mrad, spread {found.spread:.2f} over "
                    f"{found.layers} layers"
                )
        return Finding("; ".join(told), holds)

    layers = "all decaying matrices" if every_matrix else "scale-invariant layers"
    alike = "" if every_matrix else f"; 95th over 5th percentile at most {ALIKE:g}"
    return Claim(
        name,
        "Layers turn by the angle that learning rate, weight decay and momentum imply, all alike.",
        *(PAPER, experiment),
        f"median Δ/Δ* of {layers} within {points:g} of the relaxation law along the schedule, "
        f"from {RELAXED:g} τ on down to {OF_THE_PEAK:g} of the largest lr{alike}",
        roles,
        check,
    )


def turned_as_set(
    name: str, experiment: str, roles: tuple[str, ...], source: str = PAPER, seeds: int = 1
) -> Claim:
    """Claim that rotational optimizers turn layers by the set angle all along."""

    def check(its: Experiment) -> Finding:
        told, holds = [], True
        for role in roles:
            found = its.facts(role, turning)
            if not all(f.layers for f in found):
                raise CannotTell(f"{role}: a run has no weight that was measured as turned")
            if not all(f.parts for f in found):
                raise CannotTell(f"{role}: too few steps with a gradient were measured")
            holds &= all(f.as_set == f.layers for f in found)
            holds &= all(map(_turns_as_set, found))
            worst = (max(f.parts, key=lambda ratio: abs(ratio - 1)) for f in found)
            told.append(
                f"{role}: {sum(f.as_set for f in found)} of {sum(f.layers for f in found)} layers, "
                f"at first {' '.join(f'{f.start:.3f}' for f in found)} of the angle, "
                f"then {' '.join(f'{ratio:.3f}' for ratio in worst)} at worst"
            )
        return Finding("; ".join(told), holds)

    return Claim(
        name,
        "Rotational optimizers turn weights by the set angle: so by construction, this tests the "
        "implementation and predicts nothing.",
        *(source, experiment),
        f"median layer's RMS Δ within {BAND:.0%} of the angle over each tenth of the run but the "
        f"first, and within {AT_FIRST:.0%} over that ({FIRST_STEPS} steps at least), for the "
        f"running mean of squared updates remembers the first ones; each layer's within {BAND:.0%} "
        "after it, its norm kept; each run, without step 0, which centres the weights, and steps "
        "without a gradient",
        roles,
        check,
        seeds,
    )


def _turns_as_set(found: Turning) -> bool:
    starts = not abs(found.start - 1) > AT_FIRST  # not every run has samples there
    return starts and all(abs(ratio - 1) <= BAND for ratio in found.parts)


def zero_shot(
    name: str, experiment: str, pairs: tuple[tuple[str, str], ...], seeds: int = 1
) -> Claim:
    """Claim that rotational optimizers do as well as the ones they take over from."""

    def check(its: Experiment) -> Finding:
        told, holds = [], True
        for original, rotational in pairs:
            ours, theirs = (_accuracy(its, role) for role in (rotational, original))
            holds &= ours >= theirs - MARGIN
            told.append(f"{rotational} {ours:.2f}, {original} {theirs:.2f}")
        return Finding("; ".join(told), holds)

    return Claim(
        name,
        "With learning rate and weight decay carried over unchanged, rotational optimizers do at "
        "least as well.",
        *(PAPER, experiment),
        f"final accuracy, mean of the seeds, at most {MARGIN:g} points below",
        tuple(role for pair in pairs for role in pair),
        check,
        seeds,
    )


def _accuracy(experiment: Experiment, role: str) -> float:
    return float(np.mean([_final(run, role) for run in experiment.runs[role]]))


def _final(run: Run, role: str) -> float:
    found = validations(run)
    if not found:
        raise CannotTell(f"{role}: a run logged neither of {', '.join(METRICS)}")
    return found[-1][1]


def _balance(experiment: Experiment) -> Finding:
    worst: dict[str, list[float]] = {}
    for role in ("adamw", "adam-l2"):
        found = experiment.facts(role, imbalance)
        worst[role] = [value for value in found if value is not None]
        if len(worst[role]) < len(found):
            raise CannotTell(f"{role}: a run has not measured two scale-invariant layers")
    told = "; ".join(f"{role}: {' '.join(f'{x:.2f}' for x in w)}" for role, w in worst.items())
    adamw, l2 = (float(np.mean(worst[role])) for role in ("adamw", "adam-l2"))
    holds = adamw <= BALANCED and l2 >= UNBALANCED * max(1.0, adamw)
    return Finding(f"fastest over slowest layer, {told}", holds)


def _no_warmup_needed(experiment: Experiment) -> Finding:
    roles = ("sgdm", "rotational-sgd")
    best, wide, told = {}, {}, []
    for role in roles:
        by_lr = _by_option(experiment, role, "lr")
        best[role] = max(by_lr.values())
        if math.isinf(best[role]):
            raise CannotTell(f"{role}: at every learning rate a run diverged")
        good = [lr for lr, value in by_lr.items() if value >= best[role] - MARGIN]
        wide[role] = max(good) / min(good)
        told.append(
            f"{role}: best {best[role]:.2f}, within {MARGIN:g} point from lr {min(good):g} to "
            f"{max(good):g} of {len(by_lr)} learning rates, "
            f"{sum(map(math.isinf, by_lr.values()))} of them diverged"
        )
    sgdm, rotational = roles
    holds = best[rotational] >= best[sgdm] and wide[rotational] >= wide[sgdm]
    return Finding("; ".join(told), holds)


def _by_option(experiment: Experiment, role: str, option: str) -> dict[float, float]:
    """Final accuracy by an option's value, mean of the seeds; −inf where one diverged."""
    found: dict[float, dict[int | None, float]] = {}
    ended = [(run, _final(run, role)) for run in experiment.runs[role]]
    ended += [(run, -math.inf) for run in experiment.diverged.get(role, ())]
    for run, accuracy in ended:
        value = run.planned.options.get(option) if run.planned else None
        if not isinstance(value, int | float):
            raise CannotTell(f"{role}: a run does not say its {option}")
        found.setdefault(float(value), {})[seed_of(run)] = accuracy
    return {value: float(np.mean(list(by_seed.values()))) for value, by_seed in found.items()}


def _resnet20(batch: str) -> tuple[Claim, ...]:
    """The claims about ResNet-20 on CIFAR-10 at one batch size."""
    experiment, name = "re-cifar10-resnet20", f"re-cifar10-resnet20-{batch}"
    pairs = tuple((f"{o}-{batch}", f"rotational-{o}-{batch}") for o in ("adamw", "sgdm", "lion"))
    pairs = tuple((original, turned.replace("sgdm", "sgd")) for original, turned in pairs)
    return (
        implied_angle(f"{name}-angle", experiment, tuple(o for o, _ in pairs)),
        turned_as_set(f"{name}-turned", experiment, tuple(r for _, r in pairs)),
        zero_shot(f"{name}-zero-shot", experiment, pairs, seeds=3),
    )


OPTIMIZERS = tuple(
    turned_as_set(
        f"{experiment}-turned",
        experiment,
        ("rotational-sgd", "rotational-adamw", "lionar"),
        OURS,
    )
    for experiment in (
        "optimizers-imagenet",
        "optimizers-mask-rcnn",
        "optimizers-faster-rcnn",
        "optimizers-retinanet",
    )
)
"""Of the normalized optimizers: which is best is a table's business, none of a claim's."""

CLAIMS = (
    implied_angle("re-imagenet-resnet50-angle", "re-imagenet-resnet50", ("sgdm",)),
    turned_as_set("re-imagenet-resnet50-turned", "re-imagenet-resnet50", ("rotational-sgd",)),
    zero_shot(
        "re-imagenet-resnet50-zero-shot", "re-imagenet-resnet50", (("sgdm", "rotational-sgd"),)
    ),
    Claim(
        "re-imagenet-large-batch-warmup",
        "Without warmup, rotational SGD is at least as good as SGD and over as wide a range of "
        "learning rates.",
        *(PAPER, "re-imagenet-large-batch"),
        f"best final accuracy over learning rates at least SGDM's, and largest over smallest "
        f"learning rate within {MARGIN:g} point of the best at least SGDM's; a run that diverged "
        "has no accuracy",
        ("sgdm", "rotational-sgd"),
        _no_warmup_needed,
        diverged_counts=True,
    ),
    implied_angle("re-deit-tiny-angle", "re-deit-tiny", ("adamw",), every_matrix=True),
    turned_as_set("re-deit-tiny-turned", "re-deit-tiny", ("rotational-adamw",)),
    zero_shot("re-deit-tiny-zero-shot", "re-deit-tiny", (("adamw", "rotational-adamw"),)),
    *_resnet20("b128"),
    *_resnet20("b2048"),
    Claim(
        "re-adam-l2-balance",
        "AdamW's layers turn alike, those of Adam with L2 regularization do not.",
        *(PAPER, "re-adam-l2"),
        f"fastest over slowest scale-invariant layer, RMS Δ over the last fifth of the samples "
        f"with at least {OF_THE_PEAK:g} of the largest lr, mean of the seeds: AdamW's at most "
        f"{BALANCED:g}, Adam+L2's at least {UNBALANCED:g} and at least {UNBALANCED:g} times that",
        ("adamw", "adam-l2"),
        _balance,
        seeds=3,
    ),
    *stage_claims("re-adamw-stages", OURS, OURS, plain="adamw", seeds=3),
    *OPTIMIZERS,
)
