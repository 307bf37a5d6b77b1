"""Finds runs below folders and stitches each one's launches together.

A run is a work dir of any MMEngine project; every launch or resume made a folder
``<timestamp>/`` in it. Nothing in a run folder is executed or unpickled.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..records import Launch, RunState, read_launch, read_state
from . import agreement
from .config_literals import read_config
from .diagnosis import diagnose
from .scalars import Scalars, read_scalars
from .stitching import first_steps, kept_samples, newest_weights, one_history

_TIMESTAMP = re.compile(r"\d{8}_\d{6}$")


@dataclass
class Run:
    """One run: its launches in order, its config, and what it logged.

    Attributes:
        name: Path of the work dir, relative to the folder that was searched.
        folder: The work dir.
        launches: Records of each launch, oldest first; empty where none were kept.
        config: The newest dumped config, as literals.
        scalars: What was logged; later launches win.
        state: What the newest launch said of itself; None for foreign runs.
        gpus: Number of processes, where the records or the log tell.
    """

    name: str
    folder: Path
    launches: list[Launch] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    scalars: Scalars = field(default_factory=Scalars)
    state: RunState | None = None
    gpus: int = 1

    @property
    def measured(self) -> bool:
        """Whether the hook ran in any launch."""
        return any(launch.run for launch in self.launches)

    @cached_property
    def weights(self) -> pd.DataFrame:
        """One row per weight of the newest launch with records that has verdicts.

        ``changes``, the history of each verdict, goes through all launches. A weight whose
        update rule was another one in samples that are kept has no prediction.
        """
        return one_history(self._newest, self.launches, self._kept)

    @cached_property
    def _newest(self) -> pd.DataFrame:
        return newest_weights(self.launches)

    @cached_property
    def _kept(self) -> list[pd.DataFrame]:
        return kept_samples(self._newest, self.launches)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """All launches' samples: each launch supersedes what lies at or after its start.

        ``weight`` counts in :attr:`weights`; what only older launches measured is dropped,
        and so are filters that turned out to be no units of their own.
        """
        kept = [frame for frame in self._kept if len(frame)]
        if not kept:
            return pd.DataFrame()
        samples = pd.concat(kept, ignore_index=True)
        whole = samples["unit"] < 0
        if whole.all():
            return samples
        filtered = np.array(
            [row.get("per_filter") is True for row in self.weights.to_dict("records")]
        )
        return samples[whole | filtered[samples["weight"]]].reset_index(drop=True)

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Representation change and noise of the layers sampled, stitched likewise."""
        kept: list[pd.DataFrame] = []
        for launch in self.launches:
            if len(launch.layers):
                start = min(first_steps(launch))
                kept = [frame[frame["step"] < start] for frame in kept]
                kept.append(launch.layers)
        return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()

    @cached_property
    def predicted(self) -> pd.DataFrame:
        """Samples of scale-invariant weights beside their predictions."""
        if not len(self.samples) or "scale_invariant" not in self.weights:
            return pd.DataFrame()
        return agreement.predict(self.samples, self.weights)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row of agreement per scale-invariant weight."""
        return agreement.score(self.predicted, self.weights)

    @cached_property
    def diagnosis(self) -> pd.DataFrame:
        """One row per matrix: the main cause of its Δ/Δ*; see :func:`diagnose`."""
        if "scale_invariant" not in self.weights:
            return pd.DataFrame()
        return diagnose(self.predicted, self.scores, self.weights)

    @property
    def iterations(self) -> int:
        """Training iterations done."""
        return max(self.state.iteration if self.state else 0, self.scalars.iteration)

    @property
    def status(self) -> str:
        """finished, running, dead or failed; ``unfinished`` where nobody says."""
        if self.state is not None:
            return "dead" if self.state.is_dead else self.state.status
        loop = self.config.get("train_cfg") or {}
        epochs, iterations = loop.get("max_epochs"), loop.get("max_iters")
        if iterations:
            done = self.scalars.iteration >= iterations
            checkpoint = f"iter_{iterations}.pth"
        else:
            done = epochs is not None and self.scalars.validated_at >= epochs
            checkpoint = f"epoch_{epochs}.pth"
        return "finished" if done or (self.folder / checkpoint).exists() else "unfinished"


def load_runs(*folders: str | os.PathLike[str]) -> list[Run]:
    """Read every run below the given folders.

    Files that are broken or of another make are named in a warning and left out.

    Raises:
        FileNotFoundError: A folder does not exist.
    """
    runs: dict[Path, Run] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder")
        if _TIMESTAMP.match(folder.resolve().name) and _is_launch(folder):
            folder = folder.resolve().parent  # a launch stands for its run
        for work_dir in sorted(_work_dirs(folder)):
            relative = work_dir.relative_to(folder).as_posix()
            name = work_dir.resolve().name if relative == "." else relative
            try:
                runs.setdefault(work_dir.resolve(), _load_run(work_dir, name))
            except Exception as error:  # other people's folders: no run may cost the others
                warnings.warn(f"{work_dir}: left out, not readable ({error!r})", stacklevel=2)
    return list(runs.values())


def _work_dirs(folder: Path) -> Iterator[Path]:
    visited = set()
    for path, subfolders, _ in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in visited:  # a link back up
            subfolders.clear()
            continue
        visited.add(real)
        launches = [name for name in subfolders if _TIMESTAMP.match(name)]
        if any(_is_launch(Path(path) / name) for name in launches):
            yield Path(path)
        subfolders[:] = [name for name in subfolders if name not in launches]


def _is_launch(folder: Path) -> bool:
    return (
        (folder / "smd").is_dir()
        or (folder / "vis_data").is_dir()
        or (folder / f"{folder.name}.log").is_file()
    )


def _load_run(work_dir: Path, name: str) -> Run:
    run = Run(name, work_dir)
    folders = sorted(
        p for p in work_dir.iterdir() if _TIMESTAMP.match(p.name) and p.is_dir() and _is_launch(p)
    )
    for folder in folders:
        launch = read_launch(folder)
        if launch.run:
            run.launches.append(launch)
            run.gpus = int(launch.run.get("world_size", 1))
        else:
            run.gpus = _gpus_in_log(folder) or run.gpus
        run.config = _config(folder / "vis_data" / "config.py") or run.config
        run.scalars = _join(run.scalars, _scalars(folder), bool(run.config.get("resume")))
        run.state = read_state(folder) or run.state
    for path in sorted(work_dir.glob("*.py")):
        run.config = run.config or _config(path)
    return run


def _config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return read_config(path)
    except (OSError, SyntaxError, ValueError) as error:
        warnings.warn(f"{path}: left out, not readable ({error})", stacklevel=2)
        return {}


def _scalars(launch: Path) -> Scalars:
    path = launch / "vis_data" / "scalars.json"
    if not path.exists():
        return Scalars()
    try:
        scalars = read_scalars(path)
    except (OSError, UnicodeDecodeError) as error:
        warnings.warn(f"{path}: left out, not readable ({error})", stacklevel=2)
        return Scalars()
    if scalars.broken_lines:
        warnings.warn(f"{path}: {scalars.broken_lines} lines are no JSON, left out", stacklevel=2)
    return scalars


def _join(old: Scalars, new: Scalars, resumed: bool) -> Scalars:
    """Continue one launch's scalars with the next one's, or begin anew if it did."""
    if not (new.iteration or new.metrics):
        return old
    if not resumed:
        return new
    return Scalars(
        metrics={**old.metrics, **new.metrics},
        iteration=new.iteration or old.iteration,
        validated_at=new.validated_at or old.validated_at,
    )


def _gpus_in_log(folder: Path) -> int | None:
    """MMEngine logs the number of processes in its report of the environment."""
    try:
        with open(folder / f"{folder.name}.log", encoding="utf-8", errors="replace") as log:
            head = log.read(20_000)
    except OSError:
        return None
    match = re.search(r"GPU number: (\d+)", head)
    return int(match.group(1)) if match else None
