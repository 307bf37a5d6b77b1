"""Whether each stage of the schedule lasted until equilibrium, and how long that took.

Time to equilibrium is measured on the windowed Δ/Δ*, and predicted by the relaxation law
from where that ratio stood when the stage began. The law knows hyperparameters only, so
that their ratio puts it to the test.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from ...theory import (
    NoPrediction,
    UpdateRule,
    relaxation_ratio,
    relaxation_time,
    step_exponent,
)
from .blocks import predictable
from .columns import Columns, mean, of_each_weight
from .windows import BAND, stage_slices, window_length

STAGES = (
    *("parameter", "stage", "first_step", "last_step", "lr", "weight_decay"),
    *("equilibrium_angle", "relaxation_steps", "length", "ratio_start", "ratio_end"),
    *("in_equilibrium", "steps_to_equilibrium", "predicted_steps", "time_ratio"),
)
"""Columns of :func:`stage_table`."""


def stage_table(predicted: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Follow each weight through the stages of its schedule.

    A stage lies between jumps of learning rate or weight decay; a smooth schedule is one.

    Args:
        predicted: What :func:`smd_hooks.analysis.predict` returned.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        One row per parameter and stage:

        * ``stage``: its number, as ``predicted`` has it;
        * ``first_step``, ``last_step``: optimizer steps of its first and last sample;
        * ``lr``, ``weight_decay``: at its end, before a schedule comes to 0;
        * ``equilibrium_angle``: Δ* there, in radians; NaN if there is none;
        * ``relaxation_steps``: τ there, in steps; NaN for rotational weights, as are all that
          follow from it;
        * ``length``: of the stage, in relaxation times;
        * ``ratio_start``, ``ratio_end``: Δ/Δ*, root mean square over the window around the
          first and the last sample;
        * ``in_equilibrium``: whether ``ratio_end`` is within 5 % of 1;
        * ``steps_to_equilibrium``: steps that the weight took from the stage's start until
          Δ/Δ* came within 5 % and stayed there for a relaxation time, or to the end of the
          stage; NaN if it never did;
        * ``predicted_steps``: what the relaxation law says of that, from the ratio after one
          window on (before, an optimizer state that began empty fills up), as if the stage
          went on with its last setting; NaN where there is no law;
        * ``time_ratio``: measured over predicted; NaN where one of them is NaN, or none was
          to be waited for.

    Source: the relaxation law, :func:`smd_hooks.theory.relaxation_ratio`.
    """
    samples, rows = of_each_weight(predicted), []
    for index, weight, rule in predictable(weights):
        if index not in samples:
            continue
        whole = samples[index]
        for part in stage_slices(whole["stage"]):
            row = _stage(whole.at(part), rule)
            if not math.isnan(row["relaxation_steps"]):
                row["length"] = _length(whole["elapsed"], part)
            rows.append({"parameter": weight["parameter"], **row})
    return pd.DataFrame(rows, columns=list(STAGES))


def _stage(samples: Columns, rule: UpdateRule) -> dict[str, Any]:
    moving = np.flatnonzero(samples["lr"] > 0)  # a schedule may end at 0
    end = moving[-1] if len(moving) else -1
    settings = {name: float(samples[name][end]) for name in ("lr", "weight_decay")}
    ratio, ratio_end = samples["angle_ratio"], _ratio_at_the_end(samples)
    row = {
        "stage": int(samples["stage"][0]),
        "first_step": int(samples["step"][0]),
        "last_step": int(samples["step"][-1]),
        **settings,
        "equilibrium_angle": float(samples["equilibrium_angle"][end]),
        "relaxation_steps": math.nan,
        "ratio_start": float(ratio[0]),
        "ratio_end": ratio_end,
        "in_equilibrium": bool(abs(ratio_end - 1) <= BAND),
        "steps_to_equilibrium": _arrival(samples),
        "predicted_steps": math.nan,
    }
    with suppress(NoPrediction):  # no decay, no relaxation
        row["relaxation_steps"] = relaxation_time(rule.at(**settings))
        row["predicted_steps"] = _predicted_arrival(samples, rule)
    waited = row["predicted_steps"] > 0
    row["time_ratio"] = row["steps_to_equilibrium"] / row["predicted_steps"] if waited else math.nan
    return row


def _ratio_at_the_end(samples: Columns) -> float:
    """Δ/Δ* over the last whole window, as a run is scored at its end."""
    window = samples.at(slice(-window_length(samples["elapsed"]), None))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = window["angular_update"] / window["equilibrium_angle"]
    return math.sqrt(mean(ratio**2))


def _length(elapsed: np.ndarray, part: slice) -> float:
    """Relaxation times until the next stage begins, or until the last sample."""
    after = min(part.stop, len(elapsed) - 1)
    if elapsed[after] < elapsed[part.start]:  # scale invariance began anew there
        after = part.stop - 1
    return float(elapsed[after] - elapsed[part.start])


def _arrival(samples: Columns) -> float:
    """Steps until the ratio is in the band to stay; later excursions are other matters."""
    inside = np.abs(samples["angle_ratio"] - 1) <= BAND
    elapsed, own_step = samples["elapsed"], samples["own_step"]
    for stay in stage_slices(inside):
        until_the_end = stay.stop == len(inside)
        if inside[stay.start] and (until_the_end or elapsed[stay.stop] - elapsed[stay.start] >= 1):
            return float(own_step[stay.start] - own_step[0])
    return math.nan


def _predicted_arrival(samples: Columns, rule: UpdateRule) -> float:
    """The same of a ratio that follows the relaxation law."""
    first = min(window_length(samples["elapsed"]), len(samples["lr"]) - 1)
    begin, start = samples["own_step"][0], samples["angle_ratio"][first]
    law = samples.at(slice(first, None))
    law = law.at((law["lr"] > 0) & (law["weight_decay"] > 0))
    steps, settings = law["own_step"], (law["lr"], law["weight_decay"])
    if not (start > 0 and len(steps)):
        return math.nan
    # Δ/Δ* is (r/r*)^−(1 + p)
    initial = start ** (-1 / (1 + step_exponent(rule)))
    ratio = relaxation_ratio(rule, steps, *settings, law["rescale"], initial)
    outside = np.flatnonzero(~(np.abs(ratio - 1) <= BAND))
    if not len(outside):  # arrived within the first window, or was there
        return 0.0 if abs(samples["angle_ratio"][0] - 1) <= BAND else float(steps[0] - begin)
    last = int(outside[-1])
    x, edge = ratio[last] ** -2, (1 + math.copysign(BAND, ratio[last] - 1)) ** -2
    tau = relaxation_time(rule.at(float(settings[0][last]), float(settings[1][last])))
    arrives = steps[last] + tau * math.log((x - 1) / (edge - 1))
    if last + 1 < len(steps):  # a change of settings may have taken it there at once
        arrives = min(arrives, steps[last + 1])
    return float(arrives - begin)
