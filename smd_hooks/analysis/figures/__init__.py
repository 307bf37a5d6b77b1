"""Figures for papers, by matplotlib: of single runs, and of sweeps.

matplotlib is not among the library's dependencies; it is imported when a figure is drawn.
"""

from .runs import draw_angular_updates
from .sweeps import first_updates, sweep_panels
from .writing import write_figures

__all__ = ["draw_angular_updates", "first_updates", "sweep_panels", "write_figures"]
