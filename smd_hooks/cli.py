"""``smd-hooks table``: read result tables off run folders."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from .analysis.runs import load_runs
from .analysis.table import render_terminal, result_table, write_table


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0, or 2 for unusable input, with one line on stderr."""
    parser = argparse.ArgumentParser(prog="smd-hooks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser(
        "table",
        help="one row per run: accuracy, mAP and agreement with equilibrium",
        description="Reads every run below the given folders, measured or not.",
    )
    table.add_argument("folders", nargs="+", metavar="DIR", help="work dirs, or folders of them")
    table.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="csv, md, tex, html or parquet by suffix"
    )
    args = parser.parse_args(argv)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            code = _table(args)
        for warning in caught:
            print(f"warning: {str(warning.message).splitlines()[0]}", file=sys.stderr)
        return code
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _table(args: argparse.Namespace) -> int:
    runs = load_runs(*args.folders)
    if not runs:
        where = ", ".join(args.folders)
        raise ValueError(f"no run found below {where}: give a work dir of an MMEngine run")
    table = result_table(runs)
    if args.output:
        write_table(table, args.output)
        print(f"wrote {args.output}: {len(table)} runs")
    else:
        print(render_terminal(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
