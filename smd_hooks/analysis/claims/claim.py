"""A claim of a paper, and the experiment whose records it is checked on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..reading.run import Run


@dataclass(frozen=True)
class Experiment:
    """The runs of one experiment, all at full size or all of one replica.

    Attributes:
        name: As suites call it, such as ``smd-fig2``.
        scale: What the replica says of its scale; empty at full size.
        runs: By role, in the order of their seeds; those only that finished.
    """

    name: str
    scale: str
    runs: Mapping[str, Sequence[Run]]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        measured: The figures that it went by, in one line.
        holds: Whether the criterion holds; None where the records cannot tell, and ``measured``
            says why.
    """

    measured: str
    holds: bool | None


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
        check: Judges an experiment that has those roles.
        seeds: Fewest seeds of each role.
        is_control: Whether it is a control: something wrong on purpose, which the criterion
            must tell from what is right. It "holds" if the wrong thing fails.
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
