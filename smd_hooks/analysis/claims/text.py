"""The claims ledger for a terminal."""

from __future__ import annotations

import shutil
import textwrap

import pandas as pd

from .ledger import NO_CONTROL, NOT_RUN

FULL_SIZE = "full size"


def render_ledger(rows: pd.DataFrame, width: int | None = None) -> str:
    """Lay the ledger out: by experiment and scale, verdict, claim, and below it what was measured.

    Claims that nothing was measured for are named in a line; the last line counts.

    Args:
        rows: What :func:`smd_hooks.analysis.claims.ledger.ledger` returned.
        width: Columns; the terminal's, if not given.
    """
    width = width or shutil.get_terminal_size((100, 24)).columns
    lines = []
    for (experiment, scale), group in rows.groupby(["experiment", "scale"], sort=False):
        untold = group[(group["verdict"] == NOT_RUN) & (group["measured"] == "")]
        told = group.drop(untold.index)
        head = f"{experiment}, {scale or FULL_SIZE}" if len(told) else str(experiment)
        lines += textwrap.wrap(head, width, subsequent_indent="  ")
        for row in told.to_dict("records"):
            lines.append(f"  {row['verdict']:<18} {row['claim']}")
            lines += _indented(row["measured"], width)
        if len(untold):
            lines += textwrap.wrap(
                f"{NOT_RUN}: {', '.join(untold['claim'])}",
                width,
                initial_indent="  ",
                subsequent_indent="    ",
                break_on_hyphens=False,
            )
        lines.append("")
    counts = rows["verdict"].value_counts()
    order = sorted(counts.index, key=lambda verdict: (verdict == NOT_RUN, verdict == NO_CONTROL))
    lines.append(", ".join(f"{counts[verdict]} × {verdict}" for verdict in order))
    return "\n".join(lines)


def _indented(text: str, width: int) -> list[str]:
    margin = " " * 21
    return textwrap.wrap(
        text, width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
    )
