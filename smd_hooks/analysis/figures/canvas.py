"""An empty figure, and text that may stand in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...records.plain_text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEEDS = "figures need matplotlib: pip install matplotlib"
INK = "#222222"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, inches wide and high.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise ImportError(NEEDS) from missing
    return Figure(figsize=(width, height), layout="constrained")


def plain(text: str) -> str:
    """Return text as matplotlib shows it: names of runs and layers are no formulas."""
    return one_line(text, 200).replace("$", r"\$")
