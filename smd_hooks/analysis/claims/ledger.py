"""The claims ledger: each claim of the papers, what was measured, and whether it holds."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ...records.plain_text import one_line
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
AS_IT_MUST, NO_CONTROL = "fails, as it must", "DOES NOT FAIL"
"""Of a control, something wrong on purpose: what must be seen, and what must not be."""

_LONGEST_CELL = 2000
_ENDED = ("finished", "failed")


def ledger(runs: Sequence[Run]) -> pd.DataFrame:
    """Check every claim on every experiment that there is.

    Args:
        runs: What :func:`smd_hooks.analysis.load_runs` returned. Those that no suite planned
            are passed over.

    Returns:
        One row per claim and scale at which its experiment has finished runs, or one that is
        not run: ``claim``, ``source``, ``experiment``, ``scale`` (empty at full size),
        ``kind`` ("claim" or "control"), ``says``, ``criterion``, ``measured`` and ``verdict``:
        "holds", "fails" or "not run"; of a control "fails, as it must", "DOES NOT FAIL" or
        "not run". What cannot be told is not run, and ``measured`` says why.
    """
    there = experiments(runs)
    rows = []
    for claim in CLAIMS:
        its = [one for one in there if one.name == claim.experiment]
        rows += [_row(claim, one.scale, _finding(claim, one)) for one in its]
        if not its:
            rows.append(_row(claim, "", Finding("", None)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def experiments(runs: Sequence[Run]) -> list[Experiment]:
    """Put the finished runs of each experiment together, of each suite's folder and scale.

    Scales that say the same in several folders are told apart by the folder.
    """
    together: dict[tuple[str, bool, Path], list[Run]] = defaultdict(list)
    for run in runs:
        if run.planned is not None and run.planned.experiment:
            key = (run.planned.experiment, bool(run.planned.scale), run.folder.parent)
            together[key].append(run)
    found = {key: _experiment(key[0], members) for key, members in together.items()}
    found = {key: one for key, one in found.items() if one.runs}
    scales = [(one.name, one.scale) for one in found.values()]
    return [
        Experiment(one.name, f"{one.scale} [{key[2].name}]".strip(), one.runs, one.waiting)
        if scales.count((one.name, one.scale)) > 1
        else one
        for key, one in found.items()
    ]


def _experiment(name: str, members: Sequence[Run]) -> Experiment:
    runs: dict[str, list[Run]] = defaultdict(list)
    waiting: dict[str, int] = defaultdict(int)
    scales: dict[str, list[str]] = defaultdict(list)
    for run in sorted(members, key=lambda run: (seed_of(run) or 0, run.name)):
        assert run.planned is not None
        if run.status == "finished":
            runs[run.planned.role].append(run)
            roles = scales[run.planned.scale]
            roles += [run.planned.role] * (run.planned.role not in roles)
        elif run.status not in _ENDED:
            waiting[run.planned.role] += 1
    told = list(scales)
    if len(told) > 1:  # what was cut differs from role to role
        told = [f"{', '.join(roles)}: {scale}" for scale, roles in scales.items()]
    return Experiment(name, "; ".join(told), dict(runs), dict(waiting))


def _finding(claim: Claim, experiment: Experiment) -> Finding:
    """Check a claim; whatever is wrong with some files costs no other row."""
    missing = [role for role in claim.roles if role not in experiment.runs]
    if missing:
        return Finding(f"no finished run of {', '.join(missing)}", None)
    for role in claim.roles:
        seeds = len({seed_of(run) for run in experiment.runs[role]})
        if seeds < claim.seeds:
            return Finding(f"{role} has {seeds} of {claim.seeds} seeds", None)
    try:
        return claim.check(experiment)
    except CannotTell as reason:
        return Finding(str(reason), None)
    except Exception as error:
        warnings.warn(f"{claim.name}: not readable ({error!r})", stacklevel=3)
        return Finding(f"not readable: {error!r}", None)


def _row(claim: Claim, scale: str, finding: Finding) -> dict[str, str]:
    verdicts = (AS_IT_MUST, NO_CONTROL) if claim.is_control else (HOLDS, FAILS)
    return {
        "claim": claim.name,
        "source": claim.source,
        "experiment": claim.experiment,
        "scale": one_line(scale, _LONGEST_CELL),
        "kind": "control" if claim.is_control else "claim",
        "says": claim.says,
        "criterion": claim.criterion,
        "measured": one_line(finding.measured, _LONGEST_CELL),
        "verdict": NOT_RUN if finding.holds is None else verdicts[not finding.holds],
    }
