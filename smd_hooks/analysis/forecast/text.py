"""Lays a forecast out for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from .forecast import Forecast, GroupForecast, Stage

WIDTH = 100
UNKNOWN = "?"
GROUPS = 3
"""Groups of weights that are shown; JSON has all."""


def render(forecast: Forecast, width: int | None = None) -> str:
    """Return what ``smd-hooks predict`` prints: findings, then each group's stages."""
    width, epochs = width or shutil.get_terminal_size((120, 24)).columns, ""
    if forecast.steps_per_epoch is not None:
        whole = forecast.steps / forecast.steps_per_epoch
        epochs = f", {whole:.4g} epoch{'s' * (whole != 1)} of {forecast.steps_per_epoch:.6g}"
    lines = [f"{forecast.name}: {forecast.optimizer}, {forecast.steps:,} steps{epochs}"]
    lines += [_wrapped(finding) for finding in forecast.findings]
    for group in forecast.groups[:GROUPS]:
        lines += ["", *_group(group, width)]
    if (rest := len(forecast.groups) - GROUPS) > 0:
        lines += ["", f"and {rest} more groups of weights, with other learning rates or decay"]
    return "\n".join(lines)


def _group(group: GroupForecast, width: int) -> list[str]:
    rule, lines = group.rule, []
    if rule is not None:
        weights = f" ({group.weights} weight matrices)" if group.weights else ""
        lines.append(f"lr up to {rule.lr:.4g}, weight decay {rule.weight_decay:g}{weights}")
    if group.no_prediction:
        return [*lines, _wrapped(group.no_prediction)]
    table = stage_table(group.stages).set_index("stage").rename_axis(None)
    return [*lines, table.to_string(line_width=width), *map(_wrapped, group.findings)]


def stage_table(stages: tuple[Stage, ...]) -> pd.DataFrame:
    """Return the stages as text, one row per stage; τ of a ramp is that of its middle."""
    table = pd.DataFrame([_row(stage) for stage in stages])
    return table.loc[:, (table != "").any()]


def _row(stage: Stage) -> dict[str, str]:
    ramp = stage.kind != "constant"
    points = (0, 2) if ramp else (0,)
    within = stage.within_tolerance_step
    never = "never" if stage.ends_in_equilibrium is False else UNKNOWN
    milliradians = [None if a is None else 1e3 * a for a in stage.equilibrium_angle]
    return {
        "stage": f"{stage.name} {stage.kind}" if ramp and stage.name != "warmup" else stage.name,
        "steps": f"{stage.first_step}–{stage.last_step}",
        "epochs": _pair(stage.first_epoch, stage.last_epoch),
        "lr": _series([stage.lr[i] for i in points], ".3g"),
        "Δ* (mrad)": _series([milliradians[i] for i in points], ".4g"),
        "τ (steps)": _series(stage.relaxation_steps[1:2], ",.0f"),
        "τ (epochs)": _series(stage.relaxation_epochs[1:2], ".3g"),
        "length/τ": _number(stage.length, ".3g"),
        "Δ/Δ*": _series([stage.ratio[i] for i in ((0, 1, 2) if ramp else (0, 2))], ".3f", UNKNOWN),
        "in 5 % from": never if within is None else str(within),
        "if rescaled": _number(stage.rescaled_ratio, ".3f", UNKNOWN),
    }


def _series(values: Sequence[float | None], form: str, unknown: str = "") -> str:
    return " → ".join(_number(value, form, unknown) for value in values)


def _pair(first: float | None, last: float | None) -> str:
    return "" if first is None or last is None else f"{first:.3g}–{last:.3g}"


def _number(value: float | None, form: str, unknown: str = "") -> str:
    return unknown if value is None else format(value, form)


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
    )
