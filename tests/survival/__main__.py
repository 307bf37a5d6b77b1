"""``python -m tests.survival docs/survival.md``: disturb runs, and write what was lost by it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.provenance import provenance
from tests.survival import disturbances, sweeps
from tests.survival.disturbances import NEEDS_DISK, Disturbed, can_mount
from tests.survival.kills import run_kills
from tests.survival.peace import Peace

_HEAD = """# What a run survives

Small trainings (by iterations, by epochs with worker processes and averaged weights, and a
detector; all with random augmentation) are disturbed at random moments and resumed by `--resume`
until they end. A loss is anything that they have not then, bit by bit, as the same training that
was left in peace: weights, optimizer, averaged weights, metrics, losses, records and verdicts; or
another end than the one that is documented.
"""
_TABLE = (
    "| what was done | tries | losses | what the user was told |",
    "| --- | --- | --- | --- |",
)
_MOST_SAID = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table; 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.survival", description=__doc__)
    parser.add_argument("output", type=Path, help="a Markdown file")
    parser.add_argument("--kills", type=int, default=50, help="default: 50")
    parser.add_argument("--tries", type=int, default=10, help="of each disturbance; default: 10")
    args = parser.parse_args(argv)
    began = time.monotonic()
    found = list(_disturb_all(args.kills, args.tries))
    command = f"python -m tests.survival {args.output} --kills {args.kills} --tries {args.tries}"
    rows = [f"| {one.what} | {one.tries} | {len(one.losses)} | {_told(one)} |" for one in found]
    made = provenance(command, time.monotonic() - began)
    args.output.write_text("\n".join([_HEAD, *made, "", *_TABLE, *rows, ""]), encoding="utf-8")
    for one in found:
        print(*one.losses, sep="\n", end="\n" * bool(one.losses))
    return 1 if any(one.losses for one in found) else 0


def _disturb_all(kills: int, tries: int) -> Iterator[Disturbed]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        peace = Peace(folder)
        report = run_kills(peace, kills)
        kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(report.kills.items()))
        yield Disturbed(f"ended: {kinds}", report.tries, report.losses)
        for disturb in (*disturbances.ALL, *sweeps.ALL):
            if disturb in NEEDS_DISK and not can_mount(folder):
                print(f"{disturb.__name__}: not tried, mounting a small disk needs root")
                continue
            yield disturb(peace, tries)


def _told(one: Disturbed) -> str:
    """The lines that users read most often."""
    most = Counter(one.said).most_common(_MOST_SAID)
    return "; ".join(f"`{line}`" for line, _ in most).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
