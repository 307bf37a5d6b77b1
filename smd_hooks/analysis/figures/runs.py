"""Figures of single runs: angular updates, heat maps and norms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..reading.run import Run
from ..report.series import LayerSeries, a_priori_ratio, layer_series, stage_marks
from .canvas import INK, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LAYER, _MEDIAN, _LAW = "#9db8d9", "#1f4e8c", "#d1495b"
_BELOW, _EQUAL, _ABOVE = "#2166ac", "#f4f4f2", "#b35806"
_BAND = (0.85, 1.15)
_POINTS = 600
_NORM_TICKS = (0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 5, 10, 20, 50, 100)
NOTHING = "nothing to draw: no run has scale-invariant weights with a prediction"


def draw_angular_updates(runs: Sequence[Run], path: Path) -> None:
    """Draw Δ and Δ/Δ* of every scale-invariant layer over training, a column per run.

    Upper row: Δ in radians per step, its equilibrium value Δ* (for rotational weights the
    angle that is set), and the median of the trajectory law, which is fed with measured
    gradient moments. Lower row: Δ/Δ*, and the curve of :func:`a_priori_ratio`. What is
    measured are root mean squares over the windows of
    :func:`~smd_hooks.analysis.agreement.prediction.predict`.

    Args:
        runs: Runs with records; those without predictions are left out.
        path: Where to write; png, svg or pdf by suffix.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: No run has anything to draw.
    """
    runs = [run for run in runs if len(run.predicted)]
    if not runs:
        raise ValueError(NOTHING)
    angular_updates(runs).savefig(path, dpi=130)


def angular_updates(runs: Sequence[Run]) -> Figure:
    """Return the figure that :func:`draw_angular_updates` writes."""
    figure = new_figure(2.2 + 3.4 * len(runs), 6.6)
    axes = figure.subplots(2, len(runs), squeeze=False, sharex="col", sharey="row")
    for column, run in enumerate(runs):
        series = layer_series(run.predicted, run.weights, _POINTS)
        _draw_angles(axes[0, column], series)
        _draw_ratios(axes[1, column], series, run)
        axes[0, column].set_title(_title(run, series), fontsize=11)
        axes[1, column].set_xlabel("optimizer step")
    axes[0, 0].set_ylabel("angular update Δ  [rad/step]")
    axes[1, 0].set_ylabel("Δ / Δ*")
    # keys above the columns, so that no curve is covered
    style: dict[str, Any] = {"ncols": 2 if len(runs) == 1 else 4, "frameon": False, "fontsize": 9}
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", **style)
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", **style)
    return figure


def _title(run: Run, series: LayerSeries) -> str:
    return f"{plain(run.name)}\n{len(series.names)} scale-invariant layers"


def _draw_layers(axes: Axes, series: LayerSeries, rows: np.ndarray) -> None:
    axes.plot(series.steps, rows.T, color=_LAYER, lw=0.7, label="_")
    axes.plot([], [], color=_LAYER, lw=1.5, label="measured, each layer")
    axes.plot(series.steps, _median(rows), color=_MEDIAN, lw=1.8, label="measured, median")
    axes.grid(alpha=0.25, which="both", lw=0.5)


def _median(rows: np.ndarray) -> np.ndarray:
    known = ~np.isnan(rows).all(axis=0)
    median = np.full(rows.shape[1], np.nan)
    median[known] = np.nanmedian(rows[:, known], axis=0)
    return median


def _draw_angles(axes: Axes, series: LayerSeries) -> None:
    _draw_layers(axes, series, series.angle)
    law = _median(series.law)
    dashes = (0, (4, 2))
    axes.plot(series.steps, law, color=_LAW, lw=1.4, ls=dashes, label="trajectory law, median")
    targets = np.unique(series.target, axis=0, equal_nan=True)  # one for all layers, mostly
    axes.plot(series.steps, targets.T, color=INK, lw=1.2, ls=":", label="_")
    axes.plot([], [], color=INK, lw=1.2, ls=":", label="Δ*: equilibrium, or as set")
    axes.set_yscale("log")


def _draw_ratios(axes: Axes, series: LayerSeries, run: Run) -> None:
    axes.axhspan(*_BAND, color="#2a9d8f", alpha=0.12, lw=0, label=f"{_BAND[0]}–{_BAND[1]}")
    axes.plot(series.steps, series.ratio.T, color=_LAYER, lw=0.7, label="_")
    median = _median(series.ratio)
    axes.plot(series.steps, median, color=_MEDIAN, lw=1.8, label="measured, median")
    steps, curve = a_priori_ratio(run)
    if len(steps):
        axes.plot(steps, curve, color=_LAW, lw=1.6, ls="--", label="predicted a priori")
    axes.axhline(1, color=INK, lw=1.0, ls=":")
    axes.set_ylim(0, 2)
    axes.grid(alpha=0.25, lw=0.5)


def heat_map(run: Run) -> Figure:
    """Return Δ/Δ* of layers × steps, coloured by its logarithm, from a quarter to four times."""
    from matplotlib.colors import LinearSegmentedColormap

    series = layer_series(run.predicted, run.weights, _POINTS)
    layers = len(series.names)
    figure = new_figure(9, min(14, 1.6 + 0.19 * max(layers, 6)))
    axes = figure.subplots()
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.ma.masked_invalid(np.log2(series.ratio))
    colours = LinearSegmentedColormap.from_list("Δ/Δ*", [_BELOW, _EQUAL, _ABOVE])
    rows = np.arange(layers)
    mesh = axes.pcolormesh(
        series.steps,
        rows,
        values,
        cmap=colours,
        vmin=-2,
        vmax=2,
        shading="nearest",
        rasterized=True,
    )
    every = -(-layers // 60)
    axes.set_yticks(rows[::every], [plain(name) for name in series.names[::every]], fontsize=7)
    axes.invert_yaxis()
    for mark in stage_marks(run.predicted)[1:]:
        axes.axvline(mark["step"], color=INK, lw=0.8, ls=":")
    axes.set_xlabel("optimizer step")
    axes.set_title(_title(run, series), fontsize=11)
    bar = figure.colorbar(mesh, ax=axes, label="Δ / Δ*", extend="both", aspect=30)
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["¼", "½", "1", "2", "4"])
    return figure


def norms(run: Run) -> Figure:
    """Return r/r* of every layer over training; for rotational weights r over the first norm."""
    series = layer_series(run.predicted, run.weights, _POINTS)
    figure = new_figure(5.6, 3.6)
    axes = figure.subplots()
    _draw_layers(axes, series, series.norm_ratio)
    axes.axhline(1, color=INK, lw=1.0, ls=":")
    for mark in stage_marks(run.predicted)[1:]:
        axes.axvline(mark["step"], color=INK, lw=0.8, ls=":")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    ticks = [tick for tick in _NORM_TICKS if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("norm over equilibrium norm, r / r*")
    axes.set_title(_title(run, series), fontsize=11)
    axes.legend(frameon=False, fontsize=8)
    return figure
