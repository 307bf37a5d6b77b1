"""``smd-hooks table``: one row per run, or per claim."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..analysis import Run

_EXAMPLES = """\
--by                   put runs together that differ only in their seed: mean ± std
--by model optimizer   put runs together that agree in these columns
--compare A B          B − A; each a run, a group as --by names it, or a pattern ('plain-*')
--claims               the papers' claims, checked on the runs that a suite planned: holds, fails
                       or not run; with -o also source, criterion and what the claim says
"""


def add_parser(commands: Any) -> None:
    """Add the ``table`` command."""
    parser = commands.add_parser(
        "table",
        help="one row per run: accuracy, mAP and agreement with equilibrium",
        description="Reads every run below the given folders, measured or not; executes nothing.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="work dirs, or folders of them")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="csv, md, tex, html or parquet by suffix"
    )
    several = parser.add_mutually_exclusive_group()
    several.add_argument("--by", nargs="*", metavar="COLUMN", help="put runs together")
    several.add_argument("--compare", nargs=2, metavar=("A", "B"), help="show a difference")
    several.add_argument("--claims", action="store_true", help="check the papers' claims")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the table, or write it; 0, whatever holds."""
    from ..analysis import agreement_table, by_columns, compare, load_runs, over_seeds
    from ..analysis.table.formats import check_output, render_terminal, write_table

    if args.output:
        check_output(args.output)
    runs = load_runs(*args.folders)
    if not runs:
        where = ", ".join(args.folders)
        raise ValueError(f"no run found below {where}: give a work dir of an MMEngine run")
    if args.claims:
        return _show_claims(runs, args)
    table = agreement_table(runs, processes=min(2, os.cpu_count() or 1))
    if args.compare:
        table = compare(table, runs, *args.compare)
    elif args.by is not None:
        table = by_columns(table, args.by) if args.by else over_seeds(table, runs)
    if args.output:
        write_table(table, args.output)
        print(f"wrote {args.output}: {len(runs)} runs")
    else:
        print(render_terminal(table))
    return 0


def _show_claims(runs: Sequence[Run], args: argparse.Namespace) -> int:
    from ..analysis.claims.ledger import ledger
    from ..analysis.claims.text import render_ledger
    from ..analysis.table.formats import write_table

    if not any(run.planned is not None and run.planned.experiment for run in runs):
        raise ValueError(
            f"--claims: no run below {', '.join(args.folders)} belongs to an experiment: claims "
            "are checked on what 'python -m benchmarks sweep suites/….py' planned in a suite.json"
        )
    rows = ledger(runs)
    if args.output:
        write_table(rows, args.output)
        print(f"wrote {args.output}: {len(rows)} claims")
    else:
        print(render_ledger(rows))
    return 0
