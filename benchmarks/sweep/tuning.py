"""Which value of a tuned option does best, and what the optimizers do at theirs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from smd_hooks.analysis import Run
from smd_hooks.analysis.reading.scalars import METRICS

from .plan import SweepRun
from .standing import diverged
from .suite import Experiment, Tuning

BUDGET = "budget"


@dataclass(frozen=True)
class Choice:
    """What tuning found for a role.

    Attributes:
        value: The best value.
        tried: By the option's value, the last value of the metric; or why there is none.
    """

    value: float
    tried: Mapping[float, float | str]

    @property
    def at_the_edge(self) -> bool:
        """Whether a value beyond those that were tried might have been better."""
        return self.value in (min(self.tried), max(self.tried))

    def in_words(self) -> str:
        """Say what was tried and, of the best, whether it is the largest or smallest."""
        tried = (
            f"{value:.3g}: {score if isinstance(score, str) else f'{score:.4g}'}"
            for value, score in sorted(self.tried.items())
        )
        return ", ".join(tried) + (" (best at the edge)" if self.at_the_edge else "")


def choose(tuning: Tuning, trials: Iterable[SweepRun], runs: Mapping[str, Run]) -> Choice | None:
    """Choose a role's value.

    Args:
        tuning: What is tuned, and by which metric.
        trials: The role's tuning runs.
        runs: What is on disk, by name.

    Returns:
        None as long as a trial has neither finished nor diverged, or if none of them has a
        value of the metric. A detector that finds nothing has none.
    """
    tried: dict[float, float | str] = {}
    for trial in trials:
        run = runs.get(trial.name)
        if run is None or not (run.status == "finished" or diverged(run)):
            return None
        tried[trial.options[tuning.name]] = _score(run, tuning.metric)
    known = {value: score for value, score in tried.items() if not isinstance(score, str)}
    if not known:
        return None
    sign = -1 if tuning.lowest_is_best else 1
    return Choice(max(known, key=lambda value: sign * known[value]), tried)


def _score(run: Run, metric: str) -> float | str:
    if diverged(run):
        return "diverged"
    score = run.scalars.metrics.get(metric)
    if score is None:
        return f"no {metric}"
    return score if math.isfinite(score) else f"{metric} is {score}"


def budget(tuning: Tuning) -> str:
    """Say in words what was spent on tuning, which is the same for every role."""
    return f"{len(tuning.factors)} values of {tuning.name} × 1 run each, the same for every one"


def tuned_table(
    experiment: Experiment, choices: Mapping[str, Choice], runs: Sequence[Run]
) -> pd.DataFrame:
    """Return one row per role of a tuned experiment: mean ± std of its metrics over seeds.

    Args:
        experiment: One with a tuning.
        choices: What tuning found, by role.
        runs: The experiment's runs; those count that finished at the chosen value.

    Returns:
        ``experiment, role``, the tuned option, ``tried``, ``seeds``, ``failed`` (how many more
        were run at that value and did not end well), ``<metric>_mean`` and ``<metric>_std`` (of
        the sample) of each metric that was logged, and ``budget``.
    """
    tuning = experiment.tuning
    if tuning is None:
        raise ValueError(f"{experiment.name} has no tuning")
    logged, rows = set(), []
    for role in experiment.configs:
        choice = choices.get(role)
        own = [
            run
            for run in runs
            if choice is not None and _is_at(run, experiment.name, role, tuning.name, choice.value)
        ]
        counted = [run.scalars.metrics for run in own if run.status == "finished"]
        row = {
            "experiment": experiment.name,
            "role": role,
            tuning.name: choice.value if choice else math.nan,
            "tried": choice.in_words() if choice else "",
            "seeds": len(counted),
            "failed": sum(run.status in ("failed", "dead") for run in own),
            BUDGET: budget(tuning),
        }
        for metric in METRICS:
            values = pd.Series([m[metric] for m in counted if metric in m], dtype=float)
            if len(values):
                logged.add(metric)
                row |= {f"{metric}_mean": values.mean(), f"{metric}_std": values.std()}
        rows.append(row)
    metrics = [f"{m}_{part}" for m in METRICS if m in logged for part in ("mean", "std")]
    columns = ["experiment", "role", tuning.name, "tried", "seeds", "failed", *metrics, BUDGET]
    return pd.DataFrame(rows, columns=columns)


def _is_at(run: Run, experiment: str, role: str, option: str, value: float) -> bool:
    planned = run.planned
    return (
        planned is not None
        and (planned.experiment, planned.role) == (experiment, role)
        and planned.options.get(option) == value
    )
