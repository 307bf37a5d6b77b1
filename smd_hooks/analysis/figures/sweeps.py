"""Figures of sweeps: what grids of learning rates came to, and how large first updates were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..report.early_sizes import MEASURES, SHARE
from ..report.sweep_data import Start, axis_title, in_words, size_limits, starts_of, where
from ..report.sweeps import Sweep, by_value
from .canvas import INK, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEQUENCE = ("#16205c", "#7b2a8b", "#d1495b", "#f2a03f")
"""Colours that those of an ascending option go through, as in page.css."""
_STARTS = ("#d55e00", "#0072b2")
_COLUMNS = 3
_EDGE = 0.985
"""Height in a panel of what is beyond its axis, counted from the better end."""


def sweep_panels(sweep: Sweep) -> Figure:
    """Return the final metric against the learning rate: a panel per role on common axes.

    A line per value of the option; points are means of seeds, bars go from the lowest to the
    highest run. At the worse edge stand crosses where a run diverged or ended without a
    number, triangles where a mean is beyond the axis. Circles mark the best setting at the
    option's smallest value and the best above it.
    """
    columns = min(_COLUMNS, len(sweep.roles))
    rows = -(-len(sweep.roles) // columns)
    figure = new_figure(1.2 + 3.3 * columns, 1.0 + 2.9 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    colours = _sequence(len(sweep.values))
    colour_of = dict(zip(sweep.values, colours, strict=True))
    for place, role in zip(axes.flat, sweep.roles, strict=False):
        _draw_role(place, sweep, role, colour_of)
        _mark_best(place, sweep, role)
        told = "\n".join(map(plain, [role, *in_words(sweep, role)]))
        place.set_title(told, fontsize=9, loc="left")
    for place in axes.flat[len(sweep.roles) :]:
        place.remove()
    _lay_out(figure, axes, sweep)
    _add_key(figure, axes[0, 0], sweep, colour_of, columns)
    return figure


def _add_key(
    figure: Figure, axes: Axes, sweep: Sweep, colour_of: Mapping[float, Any], columns: int
) -> None:
    marks = {
        "o": f"best at {sweep.values[0]:g}, and above",
        "x": "a run diverged",
        _arrow(sweep): "beyond the axis",
    }
    lines = {plain(f"{sweep.option} {v:g}"): {"color": c} for v, c in colour_of.items()}
    signs = {
        words: {"marker": marker, "color": INK, "ls": "", "mfc": "none"}
        for marker, words in marks.items()
    }
    handles = [axes.plot([], [], **style)[0] for style in (lines | signs).values()]
    style: dict[str, Any] = {"ncols": 2 * columns, "frameon": False, "fontsize": 9}
    figure.legend(handles, [*lines, *signs], loc="outside lower center", **style)


def _lay_out(figure: Figure, axes: np.ndarray, sweep: Sweep) -> None:
    rates = sweep.rates
    first = axes[0, 0]
    first.set_xscale("log")
    first.set_ylim(*sweep.limits)
    if len(rates) > 1:
        beside = (rates[1] / rates[0]) ** 0.5
        first.set_xlim(rates[0] / beside, rates[-1] * beside)
    every = -(-len(rates) // 4)
    first.set_xticks(rates[::every], [f"{lr:.2g}" for lr in rates[::every]])
    first.set_xticks([], minor=True)
    for place in axes[:, 0]:
        place.set_ylabel(plain(axis_title(sweep)), fontsize=9)
    for place in axes.flat[: len(sweep.roles)]:
        place.tick_params(labelsize=8, labelbottom=True)
        place.set_xlabel("learning rate", fontsize=9)


def _draw_role(axes: Axes, sweep: Sweep, role: str, colour_of: Mapping[float, Any]) -> None:
    axes.grid(alpha=0.25, lw=0.5)
    for value, line in by_value(sweep.roles[role]).items():
        means = np.array([s.mean for s in line])
        bars = [
            [0.0 if s.lost else s.mean - min(s.finals) for s in line],
            [0.0 if s.lost else max(s.finals) - s.mean for s in line],
        ]
        style: dict[str, Any] = {"lw": 1.4, "marker": "o", "ms": 3.5, "elinewidth": 0.8}
        axes.errorbar([s.lr for s in line], means, bars, color=colour_of[value], **style)
    places = sweep.edge_places(role)
    edge = _EDGE if sweep.lowest_is_best else 1 - _EDGE
    for setting in sweep.roles[role]:
        if (place := places.get((setting.value, setting.lr))) is not None:
            marker = "x" if setting.lost else _arrow(sweep)
            style = {"marker": marker, "ms": 5, "color": colour_of[setting.value]}
            axes.plot(place, edge, transform=axes.get_xaxis_transform(), **style)


def _arrow(sweep: Sweep) -> str:
    return "^" if sweep.lowest_is_best else "v"


def _mark_best(axes: Axes, sweep: Sweep, role: str) -> None:
    for setting in sweep.best_pair(role):
        if setting is not None:
            axes.plot(setting.lr, setting.mean, marker="o", ms=9, mfc="none", mec=INK, mew=1.2)


def _sequence(count: int) -> list[Any]:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("sequence", list(SEQUENCE))
    return [colours(i / max(1, count - 1)) for i in range(count)]


def first_updates(sweep: Sweep) -> Figure | None:
    """Return the size measures over the first tenth of training; None where none were measured.

    A row per role that has any, a column per measure: medians and 10th to 90th percentile of
    weight matrices, of the first seed of the best settings at the option's smallest value and
    above it. All rows share a column's axis.
    """
    starts = {role: starts_of(sweep, role) for role in sweep.roles}
    measured = {
        role: several
        for role, several in starts.items()
        if any(start.sizes is not None and start.sizes.courses for start in several)
    }
    if not measured:
        return None
    limits = size_limits(start for several in measured.values() for start in several)
    figure = new_figure(12, 1.0 + 2.1 * len(measured))
    axes = figure.subplots(len(measured), len(MEASURES), squeeze=False, sharex=True, sharey="col")
    for row, (role, several) in zip(axes, measured.items(), strict=True):
        for place, (name, title) in zip(row, MEASURES.items(), strict=True):
            _draw_measure(place, several, name)
            _scale(place, limits.get(name))
            place.set_ylabel(title, fontsize=8)
        told = "  |  ".join([role, *(where(sweep, start.setting) for start in several)])
        row[0].set_title(plain(told), fontsize=9, loc="left")
    axes[0, 0].set_xlim(0, 100 * SHARE)
    lowest = f"{sweep.option} {sweep.values[0]:g}"
    names = [plain(f"best at {lowest}"), plain(f"best above {lowest}")]
    key = [axes[0, 0].plot([], [], color=c, lw=1.8)[0] for c in _STARTS]
    figure.legend(key, names, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    figure.supxlabel("share of the training's steps [%]", fontsize=10)
    return figure


def _scale(axes: Axes, limits: tuple[float, float] | None) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.tick_params(labelsize=8)
    if limits is not None:
        low, high = limits
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 50 * low else (1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_measure(axes: Axes, starts: Sequence[Start], name: str) -> None:
    axes.grid(alpha=0.25, which="both", lw=0.5)
    drawn = False
    for start in starts:
        colour = _STARTS[start.above]
        course = None if start.sizes is None else start.sizes.courses.get(name)
        if start.sizes is None or course is None:
            continue
        share = 100 * SHARE * course.steps / start.sizes.end
        axes.fill_between(share, course.low, course.high, color=colour, alpha=0.18, lw=0)
        axes.plot(share, course.median, color=colour, lw=1.5)
        drawn = True
    if not drawn:
        style: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "not measured", color="#5b6470", fontsize=9, **style)
