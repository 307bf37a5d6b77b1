"""``smd-hooks report``: one HTML file to look at runs in, and figures for papers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the ``report`` command."""
    parser = commands.add_parser(
        "report",
        help="one HTML file: curves, heat maps and a diagnosis per layer",
        description="Reads every run below the given folders, measured or not, and writes one "
        "HTML file that needs no network.",
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="work dirs, or folders of them")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the HTML file to write"
    )
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="also write PNG and SVG figures of each run"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report, and figures where asked for; 0."""
    from ..analysis.reading.runs import load_runs
    from ..analysis.report import write_report

    if args.output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{args.output}: a report is an HTML file; name it FILE.html")
    if args.figures and args.figures.exists() and not args.figures.is_dir():
        raise ValueError(f"{args.figures} is a file: give a folder for the figures")
    runs = load_runs(*args.folders)
    if not runs:
        where = ", ".join(args.folders)
        raise ValueError(f"no run found below {where}: give a work dir of an MMEngine run")
    try:
        write_report(runs, args.output)
        print(f"wrote {args.output}: {len(runs)} runs, {args.output.stat().st_size / 1e6:.1f} MB")
        if args.figures:
            from ..analysis.figures import write_figures

            written = write_figures(runs, args.figures)
            print(f"wrote {len(written)} figures below {args.figures}")
    except ImportError as missing:  # an extra that is not installed
        raise ValueError(str(missing)) from missing
    return 0
