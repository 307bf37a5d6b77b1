"""``python -m benchmarks speed``: the timings, each beside its peers, in one run."""

from __future__ import annotations

from typing import Any

from benchmarks.speed import input, measure, optim, page, records, sweep, table, train


def add_parser(commands: Any) -> None:
    """Add the ``speed`` command; each timing is a command below it."""
    parser = commands.add_parser("speed", help="time the library beside its peers")
    timings = parser.add_subparsers(dest="timing", required=True)
    input.add_parser(timings)
    measure.add_parser(timings)
    optim.add_parser(timings)
    page.add_parser(timings)
    records.add_parser(timings)
    sweep.add_parser(timings)
    table.add_parser(timings)
    train.add_parser(timings)
