"""Figures of measured against predicted angular updates, for matplotlib.

matplotlib is not among the library's dependencies; it is imported when a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..theory import NoPrediction, RotationalRule, UpdateRule, relaxation_ratio
from .runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LAYER, _MEDIAN, _LAW, _EQUILIBRIUM = "#9db8d9", "#1f4e8c", "#d1495b", "#222222"
_BAND = (0.85, 1.15)


def draw_angular_updates(runs: Sequence[Run], path: Path) -> None:
    """Draw Δ and Δ/Δ* of every scale-invariant layer over training, a column per run.

    Upper row: Δ in radians per step, its equilibrium value Δ* (for rotational weights the
    angle that is set), and the median of the trajectory law, which is fed with measured
    gradient moments. Lower row: Δ/Δ*, and the curve of :func:`a_priori_ratio`. What is
    measured are root mean squares over the windows of
    :func:`~smd_hooks.analysis.agreement.predict`.

    Args:
        runs: Runs with records; those without predictions are left out.
        path: Where to write; png, svg or pdf by suffix.

    Raises:
        ValueError: No run has anything to draw.
    """
    from matplotlib.figure import Figure

    runs = [run for run in runs if len(run.predicted)]
    if not runs:
        raise ValueError("nothing to draw: no run has scale-invariant weights with a prediction")
    figure = Figure(figsize=(2.2 + 3.4 * len(runs), 6.6), layout="constrained")
    axes = figure.subplots(2, len(runs), squeeze=False, sharex="col", sharey="row")
    for column, run in enumerate(runs):
        _draw_angles(axes[0, column], run)
        _draw_ratios(axes[1, column], run)
        axes[0, column].set_title(_title(run), fontsize=11)
        axes[1, column].set_xlabel("optimizer step")
    axes[0, 0].set_ylabel("angular update Δ  [rad/step]")
    axes[1, 0].set_ylabel("Δ / Δ*")
    # keys above the columns, so that no curve is covered
    style: dict[str, Any] = {"ncols": 4, "frameon": False, "fontsize": 9}
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", **style)
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", **style)
    figure.savefig(path, dpi=130)


def _title(run: Run) -> str:
    layers = run.predicted["parameter"].nunique()
    return f"{run.name}\n{layers} scale-invariant layers"


def _by_layer(run: Run, values: pd.Series) -> pd.DataFrame:
    """Steps × layers."""
    frame = run.predicted.assign(value=values)
    return frame.pivot(index="step", columns="parameter", values="value")


def _thin(frame: Any, most: int = 600) -> Any:
    return frame.iloc[:: max(1, len(frame) // most)]


def _draw_angles(axes: Axes, run: Run) -> None:
    data = run.predicted
    measured = _thin(_by_layer(run, data["measured_angle"]))
    axes.plot(measured.index, measured, color=_LAYER, lw=0.7, label="_")
    axes.plot([], [], color=_LAYER, lw=1.5, label="measured, each layer")
    median = measured.median(axis=1)
    axes.plot(median.index, median, color=_MEDIAN, lw=1.8, label="measured, median")
    law = _thin(_by_layer(run, data["trajectory_angle"]).median(axis=1))
    axes.plot(law.index, law, color=_LAW, lw=1.4, ls=(0, (4, 2)), label="trajectory law, median")
    targets = _thin(_by_layer(run, data["equilibrium_angle"]))
    targets = targets.loc[:, ~targets.T.duplicated().to_numpy()]  # one for all layers, mostly
    axes.plot(targets.index, targets, color=_EQUILIBRIUM, lw=1.2, ls=":", label="_")
    axes.plot([], [], color=_EQUILIBRIUM, lw=1.2, ls=":", label="Δ*: equilibrium, or as set")
    axes.set_yscale("log")
    axes.grid(alpha=0.25, which="both", lw=0.5)


def _draw_ratios(axes: Axes, run: Run) -> None:
    ratios = _thin(_by_layer(run, run.predicted["angle_ratio"]))
    axes.axhspan(*_BAND, color="#2a9d8f", alpha=0.12, lw=0, label=f"{_BAND[0]}–{_BAND[1]}")
    axes.plot(ratios.index, ratios, color=_LAYER, lw=0.7, label="_")
    median = ratios.median(axis=1)
    axes.plot(median.index, median, color=_MEDIAN, lw=1.8, label="measured, median")
    steps, curve = a_priori_ratio(run)
    if len(steps):
        axes.plot(steps, curve, color=_LAW, lw=1.6, ls="--", label="predicted a priori")
    axes.axhline(1, color=_EQUILIBRIUM, lw=1.0, ls=":")
    axes.set_ylim(0, 2)
    axes.grid(alpha=0.25, lw=0.5)


def a_priori_ratio(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and predicted Δ/Δ* from the first jump of the schedule on.

    The jump is one of learning rate or weight decay. Before it the prediction would need
    the initial norm; the jump is taken to be left from equilibrium. Where the optimizer
    turns all weights by a set angle, the ratio is 1 from the first step on.
    """
    data = run.predicted
    rules = {i: UpdateRule.from_json(run.weights["rule"][i]) for i in data["weight"].unique()}
    relaxing = [i for i, rule in rules.items() if not isinstance(rule, RotationalRule)]
    if not relaxing:
        steps = data["step"].unique()
        return np.sort(steps), np.ones(len(steps))
    layer = data[data["weight"] == relaxing[0]]
    jumps = np.flatnonzero(layer["stage"].to_numpy() > 0)
    if not len(jumps):
        return np.empty(0), np.empty(0)
    layer = layer.iloc[jumps[0] - 1 :]
    try:
        ratio = relaxation_ratio(
            rules[relaxing[0]],
            layer["own_step"],
            layer["lr"],
            layer["weight_decay"],
            layer["rescale"],
        )
    except NoPrediction:
        return np.empty(0), np.empty(0)
    return layer["step"].to_numpy(), ratio
