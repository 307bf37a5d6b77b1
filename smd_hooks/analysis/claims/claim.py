"""A claim of a paper, and the experiment whose records it is checked on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..reading.config_values import ConfigValues
from ..reading.run import Run

Fact = TypeVar("Fact")
_SEED = re.compile(r"(?:^|[-_./])seed[-_=]?(\d{1,9})(?![A-Za-z0-9])")


class CannotTell(Exception):
    """The records do not say what a check needs; the message says what is missing."""


@dataclass(frozen=True)
class Experiment:
    """The runs of one experiment, all at full size or all of one replica.

    Attributes:
        name: As suites call it, such as ``smd-fig2``.
        scale: What the replica says of its scale; empty at full size.
        runs: By role, in the order of their seeds; those only that finished.
        diverged: By role, those that ended because their loss was no longer a number.
        failed: By role, those that failed for any other reason.
        unfinished: By role, those that were planned and have not ended, or were interrupted.
    """

    name: str
    scale: str
    runs: Mapping[str, Sequence[Run]]
    diverged: Mapping[str, Sequence[Run]] = field(default_factory=dict)
    failed: Mapping[str, Sequence[Run]] = field(default_factory=dict)
    unfinished: Mapping[str, Sequence[Run]] = field(default_factory=dict)
    _known: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def incomplete(self, role: str, *, outcomes: bool = False) -> str:
        """Say what of a role's runs is missing; empty if nothing is.

        Args:
            role: The role.
            outcomes: Whether to have diverged is an outcome, as in grids of learning rates.
        """
        finished, diverged, failed, unfinished = (
            by_role.get(role, ())
            for by_role in (self.runs, self.diverged, self.failed, self.unfinished)
        )
        lost = [*failed, *(() if outcomes and finished else diverged)]
        if finished and not lost and not unfinished:
            return ""
        planned = len(finished) + len(diverged) + len(failed) + len(unfinished)
        if not planned:
            return f"no run of {role}"
        told = f"{role}: {len(finished)} of {planned} finished"
        if diverged:
            told += f", {len(diverged)} diverged"
        if failed:
            told += f", {len(failed)} failed"
        if unfinished:
            told += f", {len(unfinished)} not ended"
        return told + (f" ({lost[0].failure})" if lost else "")

    def facts(self, role: str, measure: Callable[[Run], Fact]) -> list[Fact]:
        """Measure each run of a role, once for all claims.

        One run's samples are in memory at a time, and what ``measure`` returns is small.
        """
        return [self._fact(run, measure) for run in self.runs[role]]

    def by_seed(self, role: str, measure: Callable[[Run], Fact]) -> dict[int | None, Fact]:
        """Do the same, by the runs' seeds."""
        return {seed_of(run): self._fact(run, measure) for run in self.runs[role]}

    def _fact(self, run: Run, measure: Callable[[Run], Fact]) -> Fact:
        key = (id(run), measure)
        if key not in self._known:
            with run.briefly():
                self._known[key] = measure(run)
        fact: Fact = self._known[key]
        return fact


def seed_of(run: Run) -> int | None:
    """Return the seed that a run's config says, or else its folder's name; None if neither."""
    seed = ConfigValues(run.config, run.config_file).section("randomness").count("seed")
    if seed is not None:
        return seed
    named = _SEED.findall(run.folder.name)
    return int(named[-1]) if named else None


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        measured: The figures that it went by, in one line.
        holds: Whether the criterion holds; None where the records cannot tell, and ``measured``
            says why.
        judged: Whether the check was made: what it measured may then lie too near its limit, or
            too far apart, to tell. Else the claim is not run.
    """

    measured: str
    holds: bool | None
    judged: bool = True


@dataclass(frozen=True)
class Claim:
    """One claim and its check.

    Attributes:
        name: Short and unique, such as ``smd-fig2-norm``.
        says: The claim, in a sentence of our own.
        source: Paper and figure, theorem or section.
        experiment: Which experiment answers it.
        criterion: What must be measured for it to hold, with its limits.
        roles: Roles that the check needs; without one of them the claim is not run.
        check: Judges an experiment that has those roles; it may raise :class:`CannotTell`.
        seeds: Fewest seeds of each role.
        is_control: Whether it is a control: something wrong on purpose, which the criterion
            must tell from what is right. It "holds" if the wrong thing fails.
        diverged_counts: Whether a run that diverged is an outcome that the check judges, as
            in a grid of learning rates; else there is nothing to judge with one.
    """

    name: str
    says: str
    source: str
    experiment: str
    criterion: str
    roles: tuple[str, ...]
    check: Callable[[Experiment], Finding]
    seeds: int = 1
    is_control: bool = False
    diverged_counts: bool = False
