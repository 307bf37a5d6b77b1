"""``python -m benchmarks speed page``: what the timings printed, as one page.

Each timing's Markdown lies in results/speed/, as in ``python -m benchmarks speed measure >
results/speed/measure.md``; figures go from there to docs/performance.md by this command alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

PRINTED, PAGE = Path("results/speed"), Path("docs/performance.md")
TIMINGS = {
    "measure": "The cost of one measured step",
    "train": "Where the time of a training step goes",
    "optim": "The cost of one optimizer step",
    "records": "The cost of a long run's records",
    "table": "The cost of a table",
    "sweep": "The cost of a sweep",
}
"""In the page's order, with the titles of those that are not there."""


def add_parser(commands: Any) -> None:
    """Add the ``page`` command."""
    parser = commands.add_parser("page", help="what was timed, as one page", description=__doc__)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(PRINTED), encoding="utf-8")
    return 0


def page(printed: Path) -> str:
    """Return the page: every timing below a heading of its own, with what it says of itself."""
    parts = [
        "# Performance",
        "Every figure is a ratio or a time of one run, in which what is compared took turns. "
        "Written by `python -m benchmarks speed page` from results/speed/, where each timing's "
        "own output lies.",
    ]
    for name, title in TIMINGS.items():
        file = printed / f"{name}.md"
        if file.is_file():
            parts.append(_one_level_down(file.read_text(encoding="utf-8").strip()))
        else:
            command = f"`python -m benchmarks speed {name} > {PRINTED / file.name}`"
            parts.append(f"## {title}\n\nNot measured: {command}")
    return "\n\n".join(parts) + "\n"


def _one_level_down(text: str) -> str:
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in text.splitlines())
