"""What Kosson et al., *Analyzing & Reducing the Need for Learning Rate Warmup*, claim."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..diagnosis.diagnose import is_unit
from ..reading.run import Run
from .claim import CannotTell, Claim, Experiment, Finding

PAPER = "Kosson et al., Analyzing & Reducing the Need for Learning Rate Warmup"
EXPERIMENT = "warmup-gpt"
METRIC = "val/loss"
NEGLIGIBLE = 0.01
"""Difference of validation losses, in nats per token, that is none."""
MUCH = 0.1
"""Difference that is much."""
LARGE = 2.0
"""First update's norm, over what is usual later, from which on it is large."""
FIRST = 5
"""Samples that are the start."""
SAME_LR = 1e-3
"""Relative change of a learning rate that is none."""


@dataclass(frozen=True)
class Losses:
    """Final validation losses of one optimizer, by warmup and learning rate.

    Attributes:
        by_setting: Mean of the seeds, by (warmup as a share of the steps, learning rate); inf
            where one diverged.
        seeds: Fewest runs of one setting.
    """

    by_setting: dict[tuple[float, float], float]
    seeds: int

    def best(self, chosen: Callable[[float], bool]) -> float:
        """The smallest over learning rates and those warmups that are chosen."""
        found = [x for (warmup, _), x in self.by_setting.items() if chosen(warmup)]
        return min(found, default=math.nan)

    @property
    def benefit(self) -> float:
        """How much lower the loss gets with a warmup, each at its best learning rate.

        Negative where going without one is best; 0 where both diverged; NaN where none ran
        one way.
        """
        without, with_it = self.best(lambda warmup: warmup == 0), self.best(lambda w: w > 0)
        return 0.0 if without == with_it == math.inf else without - with_it

    @property
    def benefits(self) -> dict[float, float]:
        """The same at each learning rate that ran both ways."""
        rates = sorted({lr for _, lr in self.by_setting})
        at = {
            lr: replace(self, by_setting={k: x for k, x in self.by_setting.items() if k[1] == lr})
            for lr in rates
        }
        return {lr: x.benefit for lr, x in at.items() if not math.isnan(x.benefit)}


def losses(experiment: Experiment, role: str) -> Losses:
    """Collect an optimizer's final losses.

    Raises:
        CannotTell: A run does not say its place in the grid or logged no loss, or the grid does
            not have both runs without warmup and with.
    """
    found = defaultdict(list)
    # a run that diverged is worse than all others, whether it went on to its end or not
    ended = [(run, run.scalars.metrics.get(METRIC)) for run in experiment.runs[role]]
    ended += [(run, math.inf) for run in experiment.diverged.get(role, ())]
    for run, loss in ended:
        options = run.planned.options if run.planned else {}
        warmup, lr = options.get("warmup"), options.get("lr")
        if loss is None or not isinstance(warmup, int | float) or not isinstance(lr, int | float):
            raise CannotTell(f"{role}: a run does not say its warmup and lr, or logged no {METRIC}")
        found[float(warmup), float(lr)].append(math.inf if math.isnan(loss) else loss)
    means = Losses(
        {place: float(np.mean(values)) for place, values in found.items()},
        min(map(len, found.values())),
    )
    if math.isnan(means.benefit):
        raise CannotTell(f"{role}: the grid has not both runs without a warmup and with one")
    return means


def first_updates(run: Run) -> float | None:
    """How much larger the first updates are than later ones, median of the matrices.

    ℓ2 norm of the update at the first samples, RMS, over that in the middle third of those
    that follow at the same learning rate: updates shrink with it. None without measured
    matrices, or where that is too short.
    """
    if not len(run.samples):
        return None
    units = [is_unit(entry) for entry in run.weights.to_dict("records")]
    kept = run.samples[np.array(units)[run.samples["weight"]]]
    ratios = []
    for _, frame in kept.groupby("weight"):
        lr = frame["lr"].to_numpy(float)
        changed = np.flatnonzero(np.abs(lr - lr[0]) > SAME_LR * lr[0])
        norms = frame["update_norm"].to_numpy(float)[: changed[0] if len(changed) else None]
        third = len(norms) // 3
        if third > FIRST:
            squares = (norms[:FIRST] ** 2).mean() / (norms[third : 2 * third] ** 2).mean()
            ratios.append(math.sqrt(squares))
    return float(np.median(ratios)) if ratios else None


def _worse_everywhere(experiment: Experiment) -> Finding:
    found = losses(experiment, "adamw")
    benefits = found.benefits
    if not benefits:
        raise CannotTell("adamw: no learning rate ran both with and without a warmup")
    told = ", ".join(f"{benefit:+.3f} at lr {lr:g}" for lr, benefit in benefits.items())
    told = f"benefit of a warmup {told} ({_seeds(found)})"
    return Finding(told, all(b > NEGLIGIBLE for b in benefits.values()))


def _starts_large(experiment: Experiment) -> Finding:
    without = [
        run
        for run in experiment.runs["adamw"]
        if run.planned is not None and run.planned.options.get("warmup") == 0
    ]
    known = Experiment(experiment.name, experiment.scale, {"adamw": without})
    ratios = [ratio for ratio in known.facts("adamw", first_updates) if ratio is not None]
    if not ratios:
        raise CannotTell(
            "adamw: no run without a warmup has matrices measured while its lr was constant"
        )
    told = " ".join(f"{ratio:.2f}" for ratio in ratios)
    return Finding(f"{told} times the later ones", all(ratio >= LARGE for ratio in ratios))


def _benefits(experiment: Experiment, *roles: str) -> tuple[dict[str, float], str]:
    grids = {role: losses(experiment, role) for role in roles}
    found = {role: grid.benefit for role, grid in grids.items()}
    told = ", ".join(f"{r} {grid.benefit:+.3f} ({_seeds(grid)})" for r, grid in grids.items())
    return found, f"benefit of a warmup: {told}"


def _seeds(grid: Losses) -> str:
    return "single seed" if grid.seeds == 1 else f"{grid.seeds} seeds"


def _still_benefits(experiment: Experiment) -> Finding:
    found, told = _benefits(experiment, "liona")
    return Finding(told, found["liona"] > NEGLIGIBLE)


def _less_so(experiment: Experiment) -> Finding:
    found, told = _benefits(experiment, "liona", "lionar")
    return Finding(told, found["lionar"] < found["liona"] - NEGLIGIBLE)


def _no_benefit(experiment: Experiment) -> Finding:
    found, told = _benefits(experiment, "lionar-rrc")
    return Finding(told, found["lionar-rrc"] <= NEGLIGIBLE)


def _none_is_best(experiment: Experiment) -> Finding:
    found, told = _benefits(experiment, "lionar-bias", "liona-bias")
    holds = found["lionar-bias"] <= NEGLIGIBLE and found["liona-bias"] > NEGLIGIBLE
    return Finding(told, holds)


def _needs_momentum(experiment: Experiment) -> Finding:
    roles = ("lionar", "lionar-no-momentum")
    with_it, without = (losses(experiment, role).best(lambda warmup: True) for role in roles)
    told = f"best loss {with_it:.3f}, without momentum {without:.3f}"
    return Finding(told, without - with_it >= MUCH)


_BEST = (
    f"best {METRIC} over learning rates without a warmup, minus the best with one, of a grid with "
    "more runs; single seeds, or means of them; diverged is worst"
)
CLAIMS = tuple(
    Claim(
        f"warmup-{name}",
        *(says, PAPER, EXPERIMENT, criterion, roles, check),
        diverged_counts=True,
    )
    for name, says, criterion, roles, check in (
        (
            "adamw",
            "Without warmup AdamW is worse at every learning rate.",
            f"{METRIC} without a warmup more than {NEGLIGIBLE:g} above the best with one, at "
            "every learning rate that ran both ways; single seeds, or means of them; diverged is "
            "worst",
            ("adamw",),
            _worse_everywhere,
        ),
        (
            "adamw-updates",
            "Without warmup AdamW's first updates are large in ℓ2 norm.",
            f"norm of the update in the first {FIRST} samples at least {LARGE:g} times that in "
            "the middle third of those at the same lr, median matrix, each run without warmup",
            ("adamw",),
            _starts_large,
        ),
        (
            "liona",
            "With the updates' ℓ2 norm controlled, LionA still benefits from a warmup.",
            f"{_BEST}: above {NEGLIGIBLE:g}",
            ("liona",),
            _still_benefits,
        ),
        (
            "lionar",
            "With angles controlled, LionAR benefits less.",
            f"{_BEST}: at least {NEGLIGIBLE:g} less for lionar than for liona",
            ("liona", "lionar"),
            _less_so,
        ),
        (
            "lionar-rrc",
            "With changes of representations controlled, too, there is nothing left to gain.",
            f"{_BEST}: at most {NEGLIGIBLE:g}",
            ("lionar-rrc",),
            _no_benefit,
        ),
        (
            "lionar-bias",
            "LionAR with larger β, Nesterov momentum and inverse bias correction is best "
            "without a warmup; LionA with them is not.",
            f"{_BEST}: at most {NEGLIGIBLE:g} for lionar-bias, above it for liona-bias",
            ("lionar-bias", "liona-bias"),
            _none_is_best,
        ),
        (
            "no-momentum",
            "LionAR without momentum is much worse.",
            f"best {METRIC} of all at least {MUCH:g} higher",
            ("lionar", "lionar-no-momentum"),
            _needs_momentum,
        ),
    )
)
