"""The claims ledger: each claim of the papers, what was measured, and whether it holds."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ...records import PlannedRun
from ...records.plain_text import one_line
from ...records.state import NOT_FINITE
from ..reading.run import Run
from . import rotational_equilibrium, spherical_motion, warmup
from .claim import CannotTell, Claim, Experiment, Finding, seed_of

CLAIMS: tuple[Claim, ...] = (
    *spherical_motion.CLAIMS,
    *rotational_equilibrium.CLAIMS,
    *warmup.CLAIMS,
)
"""All of them, in order."""
COLUMNS = (
    *("claim", "source", "experiment", "scale", "kind", "says", "criterion", "measured"),
    "verdict",
)
HOLDS, FAILS, NOT_RUN = "holds", "fails", "not run"
NOT_DECIDED = "not decided"
"""What was measured does not tell: more runs would."""
AS_IT_MUST, NO_CONTROL = "fails, as it must", "DOES NOT FAIL"
"""Of a control, something wrong on purpose: what must be seen, and what must not be."""

_LONGEST_CELL = 2000
_ENDED = ("finished", "failed")
_HOW = ("runs", "diverged", "failed", "unfinished")
"""How runs ended, as :class:`Experiment` has them."""


def ledger(runs: Sequence[Run]) -> pd.DataFrame:
    """Check every claim on every experiment that there is.

    Args:
        runs: What :func:`smd_hooks.analysis.load_runs` returned. Those that no suite planned
            are passed over.

    Returns:
        One row per claim and scale at which runs of its experiment ended, or one that is not
        run: ``claim``, ``source``, ``experiment``, ``scale`` (empty at full size),
        ``kind`` ("claim" or "control"), ``says``, ``criterion``, ``measured`` and ``verdict``:
        "holds", "fails", "not decided" or "not run"; of a control "fails, as it must", "DOES NOT
        FAIL", or one of the last two. What lies within the spread of the seeds is not decided;
        what cannot be told at all is not run, and ``measured`` says why: a role that a claim
        needs has runs that failed or have not ended, for instance.
    """
    there = experiments(runs)
    rows = []
    for claim in CLAIMS:
        its = [one for one in there if one.name == claim.experiment]
        rows += [_row(claim, one.scale, _finding(claim, one)) for one in its]
        if not its:
            rows.append(_row(claim, "", Finding("", None, judged=False)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def experiments(runs: Sequence[Run]) -> list[Experiment]:
    """Put the runs of each experiment together, of each suite's folder and scale.

    Roles of one replica may say each its own scale. Where one role says several, there are
    several replicas in the folder, on other data perhaps: then runs go together only if they
    say the very same. Scales that say the same in several folders are told apart by the folder.
    Experiments of which nothing ended are left out.
    """
    together: dict[tuple[str, bool, Path], list[Run]] = defaultdict(list)
    for run in runs:
        if run.planned is not None and run.planned.experiment:
            key = (run.planned.experiment, bool(run.planned.scale), run.folder.parent)
            together[key].append(run)
    found = [
        (_experiment(key[0], part), key[2].name)
        for key, members in together.items()
        for part in _replicas(members)
        if any(run.status in _ENDED for run in part)
    ]
    scales = [(one.name, one.scale) for one, _ in found]
    return [
        replace(one, scale=f"{one.scale} [{folder}]".strip())
        if scales.count((one.name, one.scale)) > 1
        else one
        for one, folder in found
    ]


def _replicas(members: Sequence[Run]) -> list[list[Run]]:
    """Part the runs of one folder by scale, if a role has more than one."""
    by_scale: dict[str, list[Run]] = defaultdict(list)
    for run in members:
        by_scale[_plan(run).scale].append(run)
    said = {(_plan(run).role, _plan(run).scale) for run in members}
    unique = len({role for role, _ in said}) == len(said)
    return [list(members)] if unique else list(by_scale.values())


def _plan(run: Run) -> PlannedRun:
    assert run.planned is not None
    return run.planned


def _experiment(name: str, members: Sequence[Run]) -> Experiment:
    ended: dict[str, dict[str, list[Run]]] = {how: defaultdict(list) for how in _HOW}
    scales: dict[str, list[str]] = defaultdict(list)
    for run in sorted(members, key=lambda run: (seed_of(run) or 0, run.name)):
        plan = _plan(run)
        ended[_how(run)][plan.role].append(run)
        scales[plan.scale] += [plan.role] * (plan.role not in scales[plan.scale])
    told = list(scales)
    if len(told) > 1:  # what was cut differs from role to role
        told = [f"{', '.join(roles)}: {scale}" for scale, roles in scales.items()]
    return Experiment(name, "; ".join(told), **{how: dict(runs) for how, runs in ended.items()})


def _how(run: Run) -> str:
    if run.status == "finished":
        return "runs"
    if run.status == "failed":
        return "diverged" if run.failure.startswith(NOT_FINITE) else "failed"
    return "unfinished"


def _finding(claim: Claim, experiment: Experiment) -> Finding:
    """Check a claim; whatever is wrong with some files costs no other row."""
    # what is left when some have failed is not what was to be judged
    lacking = [experiment.incomplete(r, outcomes=claim.diverged_counts) for r in claim.roles]
    if any(lacking):
        return Finding("; ".join(filter(None, lacking)), None, judged=False)
    for role in claim.roles:
        seeds = len({seed_of(run) for run in experiment.runs[role]})
        if seeds < claim.seeds:
            return Finding(f"{role} has {seeds} of {claim.seeds} seeds", None, judged=False)
    try:
        return claim.check(experiment)
    except CannotTell as reason:
        return Finding(str(reason), None, judged=False)
    except Exception as error:
        warnings.warn(f"{claim.name}: not readable ({error!r})", stacklevel=3)
        return Finding(f"not readable: {error!r}", None, judged=False)


def _row(claim: Claim, scale: str, finding: Finding) -> dict[str, str]:
    verdicts = (AS_IT_MUST, NO_CONTROL) if claim.is_control else (HOLDS, FAILS)
    untold = NOT_DECIDED if finding.judged else NOT_RUN
    return {
        "claim": claim.name,
        "source": claim.source,
        "experiment": claim.experiment,
        "scale": one_line(scale, _LONGEST_CELL),
        "kind": "control" if claim.is_control else "claim",
        "says": claim.says,
        "criterion": claim.criterion,
        "measured": one_line(finding.measured, _LONGEST_CELL),
        "verdict": untold if finding.holds is None else verdicts[not finding.holds],
    }
