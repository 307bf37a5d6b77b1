"""What a sweep shows: in the terminal, and as the files of a committed result."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from rich.console import Console

from benchmarks.provenance import provenance
from smd_hooks.analysis import Run, agreement_table, load_runs, write_table
from smd_hooks.analysis.claims.ledger import experiments, ledger
from smd_hooks.analysis.figures import draw_angular_updates, first_updates, sweep_panels
from smd_hooks.analysis.report.sweeps import find_sweeps
from smd_hooks.analysis.table.formats import render_terminal
from smd_hooks.analysis.table.grouping import group_rows
from smd_hooks.records.schema import FOLDER

from .gaps import EXPLANATION, SHOWN, compares_warmups, gap_table
from .plan import TUNING_ROLE
from .studies import Study
from .suite import Suite
from .tuning import BUDGET, budget, tuned_table

_WORTH_A_PROCESS = 250e6
"""Bytes of samples: some 15 seconds of scoring, where a process takes 5 to import all it needs."""
_DPI = 110
_ANGLES = "Measured angular updates against predicted ones"
_MOST_COLUMNS = 4
"""Runs beside each other in a figure."""
_TOLD = ["claim", "says", "source", "criterion", "measured", "verdict"]
"""What claims.md has of the ledger; the scale stands beside the experiment."""


@dataclass
class Outcome:
    """What is in a sweep's folder, whenever it was trained.

    Attributes:
        suite: The suite.
        studies: Its experiments that were asked for and can be run.
        not_run: Why the others are not, by name.
        root: The sweep's folder.
    """

    suite: Suite
    studies: Sequence[Study]
    not_run: Mapping[str, str]
    root: Path

    @cached_property
    def found(self) -> list[Run]:
        """All that lies in the folder."""
        return load_runs(self.root) if self.root.is_dir() else []

    @cached_property
    def runs(self) -> list[Run]:
        """The runs of the suite's experiments, planned ones that left nothing among them."""
        known = {experiment.name for experiment in self.suite.experiments}
        return [run for run in self.found if run.planned and run.planned.experiment in known]

    @property
    def there(self) -> dict[str, Run]:
        """The runs that left something on disk, by name."""
        return {run.name: run for run in self.found if run.launched}

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per run."""
        return agreement_table(self.runs, processes=_processes(self.runs))

    @cached_property
    def seeds(self) -> pd.DataFrame:
        """One row per role and options, but for the runs that only tuned something."""
        kept = [place for place, run in enumerate(self.runs) if not _tunes(run)]
        return group_rows(self.table.iloc[kept], [_setting(self.runs[place]) for place in kept])

    @cached_property
    def experiments(self) -> pd.DataFrame:
        """One row per experiment of the suite: its scale, and what of it was run, or why not."""
        scales = [(one.name, one.scale or "full size") for one in experiments(self.runs)]
        rows = []
        for experiment in self.suite.experiments:
            name = experiment.name
            own = [
                run.status for run in self.runs if run.planned and run.planned.experiment == name
            ]
            told = f"{own.count('finished')} of {len(own)} finished" if own else "not run"
            told += f" ({self.not_run[name]})" if name in self.not_run else ""
            scale = "; ".join(scale for of, scale in scales if of == name)
            rows.append([name, experiment.figure, scale, told])
        return pd.DataFrame(rows, columns=["experiment", "what", "scale", "runs"])

    @cached_property
    def claims(self) -> pd.DataFrame:
        """The claims ledger, of this suite's experiments."""
        known = [experiment.name for experiment in self.suite.experiments]
        rows = ledger(self.runs)
        return rows[rows["experiment"].isin(known)].reset_index(drop=True)

    @cached_property
    def tuned(self) -> pd.DataFrame:
        """One row per role of each tuned experiment; empty if there is none."""
        tables = [
            tuned_table(study.experiment, study.choices(self.there), self.runs)
            for study in self.studies
            if study.experiment.tuning
        ]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    @cached_property
    def gaps(self) -> pd.DataFrame:
        """One row per role of each experiment with a grid of warmups; empty if there is none."""
        roles = {
            one.name: one.configs for one in self.suite.experiments if compares_warmups(one.grid)
        }
        found = [one for one in experiments(self.runs) if one.name in roles]
        names = [one.name for one in found]
        tables = []
        for one in found:  # of replicas on other data, which one
            name = one.name if names.count(one.name) == 1 else f"{one.name}, {one.scale}"
            tables.append(gap_table(replace(one, name=name), roles[one.name]))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def show(self, console: Console) -> None:
        """Print the tables over seeds, of tuned experiments, and of claims."""
        if not self.runs:
            console.print(f"no run of this suite is in {self.root}")
            return
        told = [
            "run",
            "runs",
            "status",
            "accuracy/top1",
            "coco/bbox_mAP",
            "coco/segm_mAP",
            "val/loss",
        ]
        told += ["angle_ratio", "in_equilibrium", "trajectory_error", "norm_ratio"]
        columns = [c for c in self.seeds if c.removesuffix("_mean").removesuffix("_std") in told]
        checked = self.claims[self.claims["measured"] != ""]
        tables = [self.seeds[columns], self.tuned.drop(columns=BUDGET, errors="ignore")]
        tables.append(self.gaps[SHOWN] if len(self.gaps) else self.gaps)
        for table in [*tables, checked[["claim", "verdict", "measured"]]]:
            if len(table):
                console.out(render_terminal(table, console.width), "", sep="\n", highlight=False)
        console.print(self.count(), highlight=False)

    def count(self) -> str:
        """Say how many claims hold."""
        verdicts = self.claims["verdict"].value_counts()
        told = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        return f"claims: {told or 'none'}"

    def write(self, folder: Path, command: str, seconds: float, trained: int) -> None:
        """Write tables, figures and a README.

        Args:
            folder: Where; it must be there.
            command: What was run.
            seconds: How long that took.
            trained: How many runs it trained; the others were there.
        """
        tables = {"experiments": self.experiments, "table": self.table, "seeds": self.seeds}
        tables |= {"tuned": self.tuned, "gaps": self.gaps, "claims": self.claims}
        for name, table in tables.items():
            for suffix in ("csv", "md"):  # of an earlier sweep, perhaps
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)
            if len(table):
                write_table(table, folder / f"{name}.csv")
                write_table(table[_TOLD] if name == "claims" else table, folder / f"{name}.md")
        figures = {name: _ANGLES for study in self.studies if (name := self._draw(study, folder))}
        figures |= self._draw_sweeps(folder)
        about = provenance(command, seconds)
        there = sum(run.launched for run in self.runs)
        about.append(f"- runs: {there}, {trained} of them trained by this command")
        text = "\n".join(self._readme(folder, about, figures)) + "\n"
        (folder / "README.md").write_text(text, encoding="utf-8")

    def _draw(self, study: Study, folder: Path) -> str:
        """Draw the first seed of each role beside each other; "" where there is nothing to draw."""
        if study.experiment.tuning or study.experiment.grid:
            return ""
        first: dict[str, Run] = {}
        for run in self.runs:
            planned = run.planned
            if planned and planned.experiment == study.experiment.name and run.measured:
                first.setdefault(planned.role, run)
        name = f"{study.experiment.name}.png"
        with ExitStack() as held:
            drawn = [first[role] for role in study.sources if role in first][:_MOST_COLUMNS]
            try:
                draw_angular_updates(
                    [held.enter_context(run.briefly()) for run in drawn], folder / name
                )
            except ValueError:  # nothing in them has a prediction
                return ""
        return name

    def _draw_sweeps(self, folder: Path) -> dict[str, str]:
        """Draw grids of a learning rate and another option; return names and captions."""
        drawn = {}
        for sweep in find_sweeps(self.runs):
            name = f"{sweep.experiment}.png"
            sweep_panels(sweep).savefig(folder / name, dpi=_DPI)
            drawn[name] = f"{sweep.metric} against the learning rate"
            if (starts := first_updates(sweep)) is not None:
                name = f"{sweep.experiment}-first-updates.png"
                starts.savefig(folder / name, dpi=_DPI)
                drawn[name] = "Sizes of the first updates"
        return drawn

    def _readme(self, folder: Path, about: Sequence[str], figures: Mapping[str, str]) -> list[str]:
        lines = [f"# {self.suite.name}", "", self.suite.paper + ".", "", *about, ""]
        lines += [_content(folder / "experiments.md")]
        lines += [f"## Claims: {self.count().removeprefix('claims: ')}", ""]
        lines += [_content(folder / "claims.md")]
        if len(self.tuned):
            lines += ["## Tuned", "", *_budgets(self.studies), "", _content(folder / "tuned.md")]
        if len(self.gaps):
            lines += ["## What a warmup gains", "", EXPLANATION, "", _content(folder / "gaps.md")]
        lines += ["## Mean ± standard deviation over seeds", "", _content(folder / "seeds.md")]
        lines += [f"![{caption}]({name})" for name, caption in figures.items()]
        return [*lines, "", "Each run: [table.md](table.md)."] if len(self.table) else lines


def _processes(runs: Sequence[Run]) -> int:
    """How many processes a table is worth: to start one takes as long as to score some files."""
    files = (file for run in runs for file in run.folder.glob(f"*_*/{FOLDER}/*.parquet"))
    size = sum(file.stat().st_size for file in files)
    return min(2, os.cpu_count() or 1) if size > _WORTH_A_PROCESS else 1


def _setting(run: Run) -> Hashable:
    planned = run.planned
    return planned and (planned.experiment, planned.role, *sorted(planned.options.items()))


def _tunes(run: Run) -> bool:
    return run.planned is not None and run.planned.role.startswith(TUNING_ROLE)


def _budgets(studies: Sequence[Study]) -> list[str]:
    return [
        f"- {study.experiment.name}: {budget(study.experiment.tuning)}, by the last "
        f"{study.experiment.tuning.metric} on seed {study.experiment.tuning.seed}: chosen by what "
        "is reported, on the same validation images, in runs that are not in these means"
        for study in studies
        if study.experiment.tuning
    ]


def _content(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else "None.\n"
