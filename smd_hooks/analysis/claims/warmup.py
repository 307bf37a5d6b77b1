"""What Kosson et al., *Analyzing & Reducing the Need for Learning Rate Warmup*, claim.

And the same question asked of ImageNet and COCO.
"""

from __future__ import annotations

from .claim import Claim
from .first_update import SETTLED, first_update, later_update
from .spread import CONFIDENCE
from .warmup_checks import (
    LARGE,
    SEEDS,
    Check,
    benefit_is_lost,
    benefits,
    benefits_everywhere,
    benefits_less,
    much_worse,
    starts,
)
from .warmup_grid import ACCURACY, BOX_MAP, LOSS, Measure

PAPER = "Kosson et al., Analyzing & Reducing the Need for Learning Rate Warmup"
OURS = "ours"
ASKED_OF_IMAGES = f"ours, after the question of {PAPER}"
EXPERIMENT = "warmup-gpt"
MUCH = 0.1
"""Difference of validation losses, in nats per token, that is much."""


_OPEN = "not decided where it has both sides of that, or an lr beyond the grid could undo it"


def _limits(measure: Measure, limits: str, of: str = "a warmup's benefit") -> str:
    ways = ["without a warmup", "with one"]
    first, second = reversed(ways) if measure.highest_is_best else ways
    return (
        f"{CONFIDENCE:.0%} confidence interval over seeds of {of}, in {measure.unit}: {limits}; "
        f"{_OPEN}. Benefit: final {measure.metric} of the best setting {first} minus that of the "
        f"best {second}, each best by its mean over the same seeds; more settings have a warmup, "
        "which favours it; what diverged is worst"
    )


def _above(measure: Measure) -> str:
    return f"wholly above {measure.negligible:g}"


def _not_above(measure: Measure) -> str:
    return f"nowhere above {measure.negligible:g}"


def _claim(
    name: str,
    says: str,
    criterion: str,
    roles: tuple[str, ...],
    check: Check,
    source: str = PAPER,
    experiment: str = EXPERIMENT,
    *,
    is_control: bool = False,
) -> Claim:
    return Claim(
        f"{experiment.removesuffix('-gpt')}-{name}",
        *(says, source, experiment, criterion, roles, check, SEEDS, is_control),
        diverged_counts=True,
    )


def _control(measure: Measure, experiment: str = EXPERIMENT) -> Claim:
    return _claim(
        "control-exchanged",
        "With its warmup exchanged for none on some seeds, AdamW's benefit is gone.",
        "Of all sets of seeds on which the best warmup's scores are exchanged for those without, "
        f"at most {1 - CONFIDENCE:.0%} show a benefit, and the right scores do. "
        + _limits(measure, _above(measure)),
        ("adamw",),
        benefit_is_lost("adamw", measure),
        OURS,
        experiment,
        is_control=True,
    )


_NORM = (
    "norm of the {} {} {:g} times its RMS in the middle third of the steps at the first one's lr "
    "({:g} steps at least), median matrix, each run without a warmup"
)
_GPT = (
    _claim(
        "adamw",
        "Without warmup AdamW is worse at every learning rate.",
        _limits(LOSS, f"{_above(LOSS)} at every learning rate at which runs ended, either way"),
        ("adamw",),
        benefits_everywhere("adamw", LOSS),
    ),
    _claim(
        "adamw-updates",
        "Without warmup AdamW's first update is large in ℓ2 norm.",
        _NORM.format("very first update", "at least", LARGE, 3 * SETTLED),
        ("adamw",),
        starts("adamw", first_update, large=True),
    ),
    _claim(
        "liona",
        "With the updates' ℓ2 norm controlled, LionA still benefits from a warmup.",
        _limits(LOSS, _above(LOSS)),
        ("liona",),
        benefits(LOSS, {"liona": True}),
    ),
    _claim(
        "lionar",
        "With angles controlled, LionAR benefits less.",
        _limits(LOSS, _above(LOSS), "LionA's benefit minus LionAR's on the same seed"),
        ("liona", "lionar"),
        benefits_less("lionar", "liona", LOSS),
    ),
    _claim(
        "lionar-rrc",
        "With changes of representations controlled, too, there is nothing left to gain.",
        _limits(LOSS, _not_above(LOSS)),
        ("lionar-rrc",),
        benefits(LOSS, {"lionar-rrc": False}),
    ),
    _claim(
        "lionar-bias",
        "LionAR with larger β, Nesterov momentum and inverse bias correction is best without a "
        "warmup; LionA with them is not.",
        _limits(LOSS, f"{_not_above(LOSS)} for lionar-bias, {_above(LOSS)} for liona-bias"),
        ("lionar-bias", "liona-bias"),
        benefits(LOSS, {"lionar-bias": False, "liona-bias": True}),
    ),
    _claim(
        "no-momentum",
        "LionAR without momentum is much worse.",
        f"{CONFIDENCE:.0%} confidence interval over seeds of how much higher its final "
        f"{LOSS.metric} is, each at its best setting of all: wholly above {MUCH:g}; "
        f"{_OPEN}",
        ("lionar", "lionar-no-momentum"),
        much_worse("lionar-no-momentum", "lionar", LOSS, MUCH),
    ),
    _claim(
        "rotational-adamw",
        "RotationalAdamW, which turns by its set angle from the first step on, needs no warmup.",
        _limits(LOSS, _not_above(LOSS)),
        ("rotational-adamw",),
        benefits(LOSS, {"rotational-adamw": False}),
        OURS,
    ),
    _control(LOSS),
    _claim(
        "control-updates",
        "No single update of AdamW's is as large once its momentum has settled.",
        _NORM.format("first update after it", "less than", LARGE, 3 * SETTLED),
        ("adamw",),
        starts("adamw", later_update, large=False),
        OURS,
        is_control=True,
    ),
)


def _of_images(experiment: str, measure: Measure) -> tuple[Claim, ...]:
    """The same question of the classic recipes: which optimizers need their warmup there?"""
    about = (ASKED_OF_IMAGES, experiment)
    asked = {
        "sgdm": ("SGD with momentum benefits from a warmup.", True),
        "adamw": ("AdamW benefits from a warmup.", True),
        "lionar-bias": (
            "LionAR with larger β, Nesterov momentum and inverse bias correction does not.",
            False,
        ),
        "rotational-adamw": ("RotationalAdamW does not.", False),
    }
    return (
        *(
            _claim(
                role,
                says,
                _limits(measure, (_above if benefit else _not_above)(measure)),
                (role,),
                benefits(measure, {role: benefit}),
                *about,
            )
            for role, (says, benefit) in asked.items()
        ),
        _claim(
            "lionar",
            "LionAR benefits less than AdamW.",
            _limits(measure, _above(measure), "AdamW's benefit minus LionAR's on the same seed"),
            ("adamw", "lionar"),
            benefits_less("lionar", "adamw", measure),
            *about,
        ),
        _control(measure, experiment),
    )


CLAIMS = (
    *_GPT,
    *_of_images("warmup-imagenet", ACCURACY),
    *_of_images("warmup-coco", BOX_MAP),
)
