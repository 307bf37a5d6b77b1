"""What sweeps do to each other, and what editing their suite does to runs that have begun."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.sweep.small import write_suite_file
from tests.survival.disturbances import Disturbed, hear, judge
from tests.survival.forked import ended, start
from tests.survival.kill_runs import Case
from tests.survival.peace import Peace

_NAME = "{role}-{role}-seed0"
_REFUSED = 2


def two_sweeps(peace: Peace, tries: int) -> Disturbed:
    """Start two sweeps of one suite at once; every other time, kill one at a random moment.

    What the killed one was training ends by itself, and the other one waits for it.
    """
    found = Disturbed("two sweeps at once; one of them killed, every other time")
    for number in range(tries):
        case, parent = peace.case(number), peace.folder / f"sweeps {number}"
        command = _command(parent, case, case.config)
        both = [start(command, parent / f"console{place}.log") for place in (0, 1)]
        killed = number % 2
        if killed:
            both[0].join(peace.moment(case) + peace.moments.uniform(0, 10))  # with its imports
            both[0].kill()
        codes = [ended(sweep) for sweep in both]
        well = ([0, 0], [-signal.SIGKILL, 0]) if killed else ([0, 0],)
        if codes not in well:
            found.losses.append(f"{case.name}: exit codes {codes}")
        launches = len(list((parent / "runs" / _name(case)).glob("2*_*/")))
        if launches != 1:
            found.losses.append(f"{case.name}: trained by {launches} launches")
        judge(found, peace, case, parent / "runs", 0, _name(case))
    return found


def edited_suite(peace: Peace, tries: int) -> Disturbed:
    """End a sweep by SIGTERM, edit its config, sweep; then put the config back, and sweep.

    The edited one is refused and changes nothing.
    """
    found = Disturbed("the suite edited between two sweeps, and put back")
    for number in range(tries):
        case, parent = peace.case(number), peace.folder / f"edited {number}"
        parent.mkdir()
        config, run = parent / "config.py", parent / "runs" / _name(case)
        same = f'_base_ = ["{case.config}"]\n'
        config.write_text(same)
        command = _command(parent, case, config)
        sweep = start(command, parent / "console.log")
        while sweep.is_alive() and not (run / "last_checkpoint").exists():
            time.sleep(0.05)
        sweep.join(peace.moment(case) / 2)
        if sweep.is_alive() and sweep.pid is not None:
            os.kill(sweep.pid, signal.SIGTERM)
        ended(sweep)
        before = _content(run)
        config.write_text(f"{same}optim_wrapper = dict(optimizer=dict(weight_decay=0.0123))\n")
        code = ended(start(command, parent / "edited.log"))
        if code != _REFUSED or _content(run) != before:
            found.losses.append(f"{case.name}: edited, exit code {code}, or something was written")
        hear(found, parent / "edited.log", parent)
        config.write_text(same)
        code = ended(start(command, parent / "console.log"))
        judge(found, peace, case, parent / "runs", code, _name(case))
    return found


def _name(case: Case) -> str:
    return _NAME.format(role=case.name)


def _command(parent: Path, case: Case, config: Path) -> Sequence[str]:
    parent.mkdir(exist_ok=True)
    entry = {"id": case.name, "figure": "none", "runs": {case.name: str(config)}, "seeds": [0]}
    suite = write_suite_file(parent, entry)
    return ["sweep", str(suite), "--work-dir", str(parent / "runs"), "--jobs", "1"]


def _content(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    digest = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {str(path.relative_to(folder)): value for path, value in digest.items()}


ALL = (two_sweeps, edited_suite)
