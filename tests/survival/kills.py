"""Kills trainings at random moments, resumes them to the end, and counts what was lost."""

from __future__ import annotations

import io
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.launch.interrupts import REQUEUE
from tests.survival.forked import ended, start
from tests.survival.kill_runs import Case, Trained, differences
from tests.survival.peace import Peace

AT_ONCE = ("any moment",)
WHILE_WRITING = ("checkpoint", "records", "rename")
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGUSR1": signal.SIGUSR1}
KINDS = (*AT_ONCE, *AT_ONCE, *WHILE_WRITING, *SIGNALS)
"""Ways to end a launch; a SIGKILL but for the last two. Any moment comes twice as often."""
KILLS_PER_RUN = 5


@dataclass
class KillReport:
    """What came of it.

    Attributes:
        kills: Launches that were killed, by how.
        runs: Trainings that were killed so and resumed until they ended, by name.
        losses: What differs from the trainings never killed, in a line each.
    """

    kills: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)

    @property
    def tries(self) -> int:
        """How many launches were killed."""
        return self.kills.total()


def run_kills(peace: Peace, kills: int, only: str = "") -> KillReport:
    """Kill and resume copies of the small trainings, and hold them to those left in peace.

    Args:
        peace: Those, and the moments.
        kills: How many launches to kill in all.
        only: The one training to kill; "" for all in turn.
    """
    report = KillReport()
    cases = [case for case in peace.cases if only in ("", case.name)]
    while report.tries < kills:
        case = cases[report.runs.total() % len(cases)]
        whole, _ = peace.of(case)
        parent = peace.folder / f"killed {report.runs.total()}"
        end = _end_it_often(peace, case, parent, min(KILLS_PER_RUN, kills - report.tries), report)
        report.runs[case.name] += 1
        where = f"{case.name}, {parent.name}"
        found = [end] if end else differences(whole, Trained.read(parent / case.name))
        report.losses += [f"{where}: {line}" for line in found]
    return report


def _end_it_often(peace: Peace, case: Case, parent: Path, most: int, report: KillReport) -> str:
    """Kill and resume a training until it has ended; return "" or why it cannot go on."""
    killed = 0
    while True:
        kind = peace.moments.choice(KINDS) if killed < most else ""
        after = peace.moment(case) if kind in (*AT_ONCE, *SIGNALS) else None
        chance = peace.moments.randrange(2**32)
        command = [*case.command(parent), "--resume"]
        launch = start(command, parent / "console.log", _prepare, kind, chance, peace.prepare)
        if after is not None:
            launch.join(after)
            if launch.is_alive() and launch.pid is not None:
                os.kill(launch.pid, SIGNALS.get(kind, signal.SIGKILL))
        code = ended(launch)
        expected = REQUEUE if kind in SIGNALS else -signal.SIGKILL
        # one that is not listening yet ends as any process does
        if kind and code in (expected, -SIGNALS.get(kind, signal.SIGKILL)):
            killed += 1
            report.kills[kind] += 1
        else:  # it was left alone, or had ended before the moment came
            return "" if code == 0 else f"exit code {code} after {kind or 'no kill'}"


def _prepare(kind: str, chance: int, prepare: Callable[[], None] | None) -> None:
    """Ready a launch for its end."""
    if prepare is not None:
        prepare()
    if kind in WHILE_WRITING:
        _die_while_writing(kind, random.Random(chance))


def _die_while_writing(what: str, chance: random.Random) -> None:
    """Let this process be killed in one of the next times that it writes such a file."""
    import pyarrow.parquet as pq
    from mmengine.fileio import LocalBackend

    left = chance.randrange(1, 4 if what != "rename" else 30)
    part = chance.random()

    def is_last() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    write_table, put, replace = pq.write_table, LocalBackend.put, Path.replace

    def put_in_part(self: Any, content: bytes, path: Any) -> None:
        if is_last():
            with open(path, "wb") as file:
                file.write(content[: int(part * len(content))])
            die()
        put(self, content, path)

    def write_table_in_part(table: Any, file: Any, **options: Any) -> None:
        if is_last():
            whole = io.BytesIO()
            write_table(table, whole, **options)
            file.write(whole.getvalue()[: int(part * whole.tell())])
            file.flush()
            die()
        write_table(table, file, **options)

    def replace_or_die(self: Path, target: Any) -> Path:
        last = is_last()
        if last and part < 0.5:
            die()
        moved = replace(self, target)
        if last:
            die()
        return moved

    if what == "checkpoint":
        LocalBackend.put = put_in_part
    elif what == "records":
        pq.write_table = write_table_in_part
    else:
        Path.replace = replace_or_die  # type: ignore[method-assign, assignment]


def forget_random_state() -> None:
    """Resume as MMEngine does, for a control that must fail: generators are seeded anew."""
    from benchmarks.launch.runner import SuiteRunner

    SuiteRunner.goes_on = _nothing  # type: ignore[method-assign]


def forget_draws() -> None:
    """Do as MMEngine does: what a worker draws depends on all that it drew before."""
    from benchmarks.launch import loops

    loops.number_draws = _nothing  # type: ignore[assignment]


def _nothing(*_: Any, **__: Any) -> None:
    """Stand for what is not done."""
