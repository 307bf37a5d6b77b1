"""``smd-hooks table``: one row per run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

_EXAMPLES = """\
--by                   put runs together that differ only in their seed: mean ± std
--by model optimizer   put runs together that agree in these columns
--compare A B          B − A; each a run, a group as --by names it, or a pattern ('plain-*')
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the table, or write it; 0."""
    from ..analysis import agreement_table, by_columns, compare, load_runs, over_seeds
    from ..analysis.table.formats import check_output, render_terminal, write_table

    if args.output:
        check_output(args.output)
    runs = load_runs(*args.folders)
    if not runs:
        where = ", ".join(args.folders)
        raise ValueError(f"no run found below {where}: give a work dir of an MMEngine run")
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
