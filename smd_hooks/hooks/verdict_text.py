"""What the log says of scale invariance: a few lines, run.json has the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ..measure.invariance import Verdict
from ..measure.invariance_watch import Findings

NAMES = 6
"""Names that a line holds; the others are counted."""


def describe_verdicts(findings: Findings, before: Findings | None = None) -> str:
    """Say which matrices are scale-invariant and what stops the others.

    Args:
        findings: What was found.
        before: What was found before; then only what has changed is told.
    """
    matrices = [v for v in findings.verdicts if v.is_matrix]
    jointly = {member for group in findings.groups for member in group.members}
    invariant = sum(v.scale_invariant is True or v.parameter in jointly for v in matrices)
    since = f" from step {findings.from_step} on" if before is not None else ""
    lines = [f"SMD: {invariant} of {len(matrices)} weight matrices are scale-invariant{since}."]
    lines += [f"  jointly: {_names(group.members, ' + ')}" for group in findings.groups]
    known = {v.parameter: v for v in before.verdicts} if before is not None else {}
    news = [v for v in matrices if v.parameter not in jointly and _differs(v, known)]
    by_reason: dict[str, list[str]] = defaultdict(list)
    for verdict in news:
        if verdict.scale_invariant is not True:
            by_reason[f"left out, {verdict.reason}"].append(verdict.parameter)
        elif before is not None:
            by_reason["now scale-invariant"].append(verdict.parameter)
    lines += [f"  {reason}: {_names(names, ', ')}" for reason, names in by_reason.items()]
    return "\n".join(lines)


def _differs(verdict: Verdict, known: dict[str, Verdict]) -> bool:
    old = known.get(verdict.parameter)
    new = verdict.scale_invariant, verdict.reason
    return old is None or (old.scale_invariant, old.reason) != new


def _names(names: Sequence[str], between: str) -> str:
    told = [name.removesuffix(".weight") for name in names[:NAMES]]
    rest = len(names) - len(told)
    return between.join(told) + (f" and {rest} more" if rest else "")
