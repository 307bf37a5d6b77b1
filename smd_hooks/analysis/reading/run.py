"""A run: its launches, stitched together, and what follows from them.

A run is a work dir of any MMEngine project; every launch or resume made a folder
``<timestamp>/`` in it. Nothing in a run folder is executed or unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...records import Launch, PlannedRun, RunState
from ..agreement.prediction import predict
from ..agreement.scores import score
from ..agreement.stages import stage_table
from ..diagnosis.diagnose import diagnose
from .config_values import ConfigValues
from .scalars import Scalars
from .size_measures import size_measures
from .stitching import first_steps, kept_samples, newest_weights, one_history


@dataclass
class Run:
    """One run: its launches in order, its config, and what it logged.

    Samples, and all that follows from them, are read when they are asked for.

    Attributes:
        name: Path of the work dir, relative to the folder that was searched, on one line.
        folder: The work dir.
        launches: Records of each launch, oldest first; empty where none were kept.
        config: The newest dumped config, as literals.
        config_file: Where it was read.
        scalars: What was logged; later launches win.
        state: What the newest launch said of itself; None for foreign runs.
        planned: What a suite says of the run.
        launched: Whether it left anything on disk; if not, a suite planned it.
        problem: Why the newest launch's records cannot be read; empty where they can.
        gpus: Number of processes, where the records or the log tell.
    """

    name: str
    folder: Path
    launches: list[Launch] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    config_file: Path | None = None
    scalars: Scalars = field(default_factory=Scalars)
    state: RunState | None = None
    planned: PlannedRun | None = None
    launched: bool = True
    problem: str = ""
    gpus: int = 1

    @property
    def measured(self) -> bool:
        """Whether the hook ran in any launch."""
        return any(launch.run for launch in self.launches)

    @contextmanager
    def briefly(self) -> Iterator[Run]:
        """Forget at the end what is read within: of a thousand runs, one is held at a time."""
        held = set(self.__dict__)
        try:
            yield self
        finally:
            for name in set(self.__dict__) - held:
                del self.__dict__[name]

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
        samples = kept[0] if len(kept) == 1 else pd.concat(kept, ignore_index=True)
        whole = samples["unit"].to_numpy() < 0
        if whole.all():
            return samples.reset_index(drop=True)
        filtered = np.array(
            [row.get("per_filter") is True for row in self.weights.to_dict("records")]
        )
        return samples[whole | filtered[samples["weight"]]].reset_index(drop=True)

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Representation change, noise and alignment of the layers sampled, stitched likewise."""
        kept: list[pd.DataFrame] = []
        for launch in self.launches:
            layers = launch.layers
            if len(layers):
                start = min(first_steps(launch), default=0)
                kept = [frame[frame["step"] < start] for frame in kept]
                kept.append(layers)
        return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()

    @cached_property
    def predicted(self) -> pd.DataFrame:
        """Samples of scale-invariant weights beside their predictions."""
        if not len(self.samples) or "scale_invariant" not in self.weights:
            return pd.DataFrame()
        return predict(self.samples, self.weights)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row of agreement per scale-invariant weight."""
        return score(self.predicted, self.weights)

    @cached_property
    def stages(self) -> pd.DataFrame:
        """One row per scale-invariant weight and stage of the schedule."""
        return stage_table(self.predicted, self.weights)

    @cached_property
    def diagnosis(self) -> pd.DataFrame:
        """One row per matrix: the main cause of its Δ/Δ*; see :func:`diagnose`."""
        if "scale_invariant" not in self.weights:
            return pd.DataFrame()
        return diagnose(self.predicted, self.scores, self.weights)

    @cached_property
    def size_measures(self) -> pd.DataFrame:
        """All measures of how large updates are, per matrix and step; see :func:`size_measures`."""
        return size_measures(self.samples, self.weights, self.layers)

    @property
    def iterations(self) -> int:
        """Training iterations done."""
        return max(self.state.iteration if self.state else 0, self.scalars.iteration)

    @cached_property
    def status(self) -> str:
        """How the run is: what it says of itself, or what its folder looks like.

        ``finished``, ``running``, ``failed``; ``dead``: it said that it runs, but has been
        silent for :data:`~smd_hooks.records.state.DEAD_AFTER`; ``missing``: planned, and
        nothing on disk; ``unfinished``: nobody says, and its end is not there.
        """
        own, planned = self._own_status(), self.planned
        said = self.state.updated if self.state else 0.0
        seen_to_fail = planned is not None and planned.failed and planned.updated >= said
        return "failed" if seen_to_fail and own != "finished" else own

    def _own_status(self) -> str:
        if not self.launched:
            return "missing"
        if self.state is not None:
            return "dead" if self.state.is_dead else self.state.status
        loop = ConfigValues(self.config, self.config_file).section("train_cfg")
        epochs, iterations = loop.count("max_epochs"), loop.count("max_iters")
        if iterations:
            done = self.scalars.iteration >= iterations
            checkpoint = f"iter_{iterations}.pth"
        else:
            done = epochs is not None and self.scalars.validated_at >= epochs
            checkpoint = f"epoch_{epochs}.pth"
        return "finished" if done or (self.folder / checkpoint).is_file() else "unfinished"

    @property
    def failure(self) -> str:
        """Why it failed, in one line; empty if it did not."""
        if self.status != "failed":
            return ""
        own = self.state.error if self.state and self.state.status == "failed" else ""
        return own or (self.planned.failed if self.planned else "")
