"""Writes all figures that runs have, each into a folder of its own."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ...records.plain_text import one_line
from ..reading.run import Run
from ..report.sweeps import Sweep, find_sweeps
from .runs import NOTHING, angular_updates, heat_map, norms
from .sweeps import first_updates, sweep_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Subject = TypeVar("Subject")


def write_figures(runs: Sequence[Run], folder: str | os.PathLike[str]) -> list[Path]:
    """Write the figures of each run and each sweep, each as PNG and SVG.

    Of a run ``angular_update``, ``heat_map`` and ``norm``; of a suite's grid of learning rates
    and another option ``learning_rates`` and, where any were measured, ``first_updates``.

    Args:
        runs: Runs without predictions have no figures of their own.
        folder: Where; each run and each sweep gets a folder of its own in it, named after the
            run or experiment.

    Returns:
        The files.

    Raises:
        ImportError: matplotlib is missing.
        OSError: A file cannot be written.
        ValueError: There is nothing to draw.
    """
    written, taken = list[Path](), set[str]()
    for sweep in find_sweeps(runs):
        drawn = _drawn(_of_sweep, sweep, sweep.experiment)
        written += _save(drawn, Path(folder), sweep.experiment, taken)
    for run in runs:
        with run.briefly():
            drawn = _drawn(_of_run, run, run.folder)
        written += _save(drawn, Path(folder), run.name, taken)
    if not written:
        raise ValueError(NOTHING)
    return written


def _of_run(run: Run) -> dict[str, Figure]:
    if not len(run.predicted):
        return {}
    return {"angular_update": angular_updates([run]), "heat_map": heat_map(run), "norm": norms(run)}


def _of_sweep(sweep: Sweep) -> dict[str, Figure]:
    early = first_updates(sweep)
    return {
        "learning_rates": sweep_panels(sweep),
        **({} if early is None else {"first_updates": early}),
    }


def _drawn(
    draw: Callable[[Subject], dict[str, Figure]], subject: Subject, name: object
) -> dict[str, Figure]:
    try:
        return draw(subject)
    except ImportError:
        raise
    except Exception as error:  # other people's files: no run may cost the others theirs
        warnings.warn(f"{one_line(name)}: no figures ({error!r})", stacklevel=3)
        return {}


def _save(figures: dict[str, Figure], folder: Path, name: str, taken: set[str]) -> list[Path]:
    if not figures:
        return []
    place = folder / _folder_name(name, taken)
    place.mkdir(parents=True, exist_ok=True)
    paths = []
    for figure_name, figure in figures.items():
        for suffix in ("png", "svg"):
            paths.append(place / f"{figure_name}.{suffix}")
            figure.savefig(paths[-1], dpi=130)
    return paths


def _folder_name(name: str, taken: set[str]) -> str:
    """A name that stays in the folder, whatever the run is called, and differs from others."""
    plain = unicodedata.normalize("NFKC", one_line(name))
    name = re.sub(r"[^\w.=-]+", "_", plain).lstrip(".")[:120] or "run"
    number, unique = 1, name
    while unique.lower() in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(unique.lower())
    return unique
