"""``python -m benchmarks replica``: theory put to the test on a time-scaled ImageNet schedule.

A small BN ResNet learns real digits on a schedule whose stages last as long as
ImageNet's, counted in relaxation times: with SGD and AdamW, plainly and with weights
rescaled at the drops, on several seeds, and twice in ways that theory says must go wrong.
Each run is judged by its own records, a rescaled one also beside the plain one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from benchmarks.demo import DATA
from benchmarks.pipelines.demo_data.digits import write_digits
from benchmarks.provenance import provenance
from benchmarks.replica_agreement import BAND, POINTS, STAGES
from benchmarks.replica_criteria import (
    CLASSIFIER_CALLED,
    NOISE_FREE,
    NORMS_DECAY,
    PLAIN,
    RESCALED,
    Criterion,
    evidence,
    failures,
    row,
)
from benchmarks.trainings import Training, train
from smd_hooks.analysis import Run, load_runs, write_table
from smd_hooks.analysis.table.formats import render_terminal


@dataclass(frozen=True)
class Setting:
    """A config, and what its runs must show.

    Attributes:
        config: Its file.
        criteria: What each run is judged by.
        every_seed: Whether every seed runs it, or the first only.
        plain: For a rescaled setting, the same without rescaling.
    """

    config: str
    criteria: list[Criterion]
    every_seed: bool
    plain: str | None = None


SETTINGS = {
    "plain": Setting("resnet_digits.py", [*PLAIN, *CLASSIFIER_CALLED], True),
    "rescaled": Setting(
        "resnet_digits_rescaled.py", [*RESCALED, *CLASSIFIER_CALLED], True, "plain"
    ),
    "adamw": Setting("resnet_digits_adamw.py", [*PLAIN, *CLASSIFIER_CALLED], True),
    "adamw-rescaled": Setting(
        "resnet_digits_adamw_rescaled.py", [*RESCALED, *CLASSIFIER_CALLED], True, "adamw"
    ),
    "noise-free": Setting("resnet_digits_noise-free.py", [*NOISE_FREE, *CLASSIFIER_CALLED], False),
    "norm-decay": Setting("resnet_digits_norm-decay.py", [*NORMS_DECAY, *CLASSIFIER_CALLED], False),
}


def add_parser(commands: Any) -> None:
    """Add the ``replica`` command."""
    parser = commands.add_parser(
        "replica", help="put theory to the test on a time-scaled schedule", description=__doc__
    )
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/replica"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument(
        "--no-train", action="store_true", help="judge the runs that are in the work dir"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, judge and write the table; 1 if a run failed or a criterion does not hold."""
    console = Console()
    started = time.monotonic()
    planned = plan(args.work_dir, args.only, args.seeds)
    failed = []
    if not args.no_train:
        write_digits(DATA)
        failed = train(list(planned.values()))
        for training in failed:
            console.print(f"[red]{training.name} failed[/]: {training.last_words()}")
    there = load_runs(args.work_dir) if args.work_dir.is_dir() else []
    runs = {run.name: run for run in there if run.launched}
    missing = [name for name in planned if name not in runs]
    if missing:
        console.print(f"no records in {args.work_dir}: {', '.join(missing)}")
    found = [runs[name] for name in planned if name in runs]
    table = judge(found, runs)
    if found:
        console.out(render_terminal(table, console.width), highlight=False)
        console.out(*over_seeds(table), *closed_form_misses(table), sep="\n", highlight=False)
        command = f"python -m benchmarks replica --seeds {' '.join(map(str, args.seeds))} "
        command += f"--only {' '.join(args.only)}" + (" --no-train" if args.no_train else "")
        write(table, args.work_dir, provenance(command, time.monotonic() - started))
        console.print(f"wrote README.md, table.csv and table.md to {args.work_dir}")
    holds = bool(len(table)) and bool((table["verdict"] == "holds").all())
    return 0 if holds and not failed and not missing else 1


def plan(work_dir: Path, settings: list[str], seeds: list[int]) -> dict[str, Training]:
    """Name the trainings: each setting on every seed, the controls on the first one."""
    trainings = {}
    for name in settings:
        setting = SETTINGS[name]
        for seed in seeds if setting.every_seed else seeds[:1]:
            folder = f"{name}-seed{seed}"
            trainings[folder] = Training(
                folder,
                f"configs/replica/{setting.config}",
                work_dir / folder,
                ("--seed", str(seed)),
            )
    return trainings


def judge(runs: list[Run], others: Mapping[str, Run]) -> pd.DataFrame:
    """Return one row per run, each judged by the criteria of its setting.

    Args:
        runs: The runs.
        others: All runs there are, by name; among them plain ones beside rescaled ones.
    """
    rows = []
    for one in runs:
        name, _, seed = one.name.rpartition("-seed")
        setting = SETTINGS[name]
        found = evidence(one, others.get(f"{setting.plain}-seed{seed}"))
        failed = failures(setting.criteria, found)
        if one.status != "finished":
            failed.insert(0, f"the run is {one.status}")
        rows.append(row(one, found, failed))
    return pd.DataFrame(rows)


def over_seeds(table: pd.DataFrame) -> list[str]:
    """Say in a line per setting with several seeds what they have in common."""
    lines = []
    for name, rows in table.groupby(table["run"].str.rpartition("-seed")[0], sort=False):
        if len(rows) < 2:
            continue
        stages = [
            f"{rows[f'angle_ratio_{n}'].mean():.3f} ± {rows[f'angle_ratio_{n}'].std(ddof=0):.3f} "
            f"({rows[f'closed_form_{n}'].mean():.3f}, {rows[f'drift_corrected_{n}'].mean():.3f})"
            for n in range(2, STAGES + 1)
        ]
        lines.append(
            f"- {name}, {len(rows)} seeds: Δ/Δ* at the ends of stages 2 to {STAGES}, "
            f"mean ± std (closed form, drift-corrected): {'; '.join(stages)}"
        )
        drops = [
            f"{before.mean():.1f} to {after.mean():.1f} ({(after - before).mean():+.1f})"
            for n in range(1, STAGES)
            for before, after in [(rows[f"top1_before_drop_{n}"], rows[f"top1_after_drop_{n}"])]
        ]
        lines.append(
            f"- {name}: top-1 before each drop and one step after it, mean of the seeds: "
            + "; ".join(drops)
        )
    return lines


def closed_form_misses(table: pd.DataFrame) -> list[str]:
    """Say where runs that are no controls miss the closed form, by how much and why."""
    lines = []
    for one in table.to_dict("records"):
        if not SETTINGS[one["run"].rpartition("-seed")[0]].every_seed:
            continue
        misses = [
            f"stage {n} ends at {one[f'angle_ratio_{n}']:.3f} for {one[f'closed_form_{n}']:.3f} "
            f"(drift-corrected {one[f'drift_corrected_{n}']:.3f}), h̃ at "
            f"{one[f'driving_moment_{n}']:.2f} of what it was at the end of stage 2"
            for n in range(2, STAGES + 1)
            if abs(one[f"angle_ratio_{n}"] - one[f"closed_form_{n}"]) > POINTS
        ]
        if misses:
            lines.append(f"- {one['run']}: {'; '.join(misses)}")
    if not lines:
        return [f"No run but the controls misses its closed form by more than {POINTS:g}."]
    return [
        "The closed form is what hyperparameters alone say in advance. The runs below, controls",
        f"apart, miss it by more than {POINTS:g} at the end of a stage. "
        "It takes h̃ for steady; in a",
        "stage that ends long before τ the norm cannot follow an h̃ that changes, and Δ/Δ* goes as",
        "its root. The drift-corrected form is told of that change. Rescaled runs are held to it",
        f"within {POINTS:g} and {POINTS:.0%}, and besides to {BAND[0]:g} to {BAND[1]:g} in every",
        "stage.",
        "",
        *lines,
    ]


def write(table: pd.DataFrame, folder: Path, about: list[str]) -> None:
    """Write the table as CSV and Markdown, and a README that says what it is."""
    write_table(table, folder / "table.csv")
    write_table(table, folder / "table.md")
    criteria = [
        f"- {name}: {'; '.join(text for text, _ in setting.criteria)}"
        for name, setting in SETTINGS.items()
    ]
    lines = [
        "# The time-scaled replica",
        "",
        *about,
        "",
        (folder / "table.md").read_text(encoding="utf-8"),
        *over_seeds(table),
        "",
        *closed_form_misses(table),
        "",
        "`angle_ratio_n` is Δ/Δ* (RMS over the last fifth of stage n, median of the convs),",
        "`closed_form_n` what hyperparameters alone say for a steady h̃, `drift_corrected_n` what",
        "they say if told how each layer's measured h̃ changed from the end of stage 1 to this very",
        "window, and `driving_moment_n` what h̃ really is there, over its value at the end of stage",
        "2. Only `closed_form_n` is a prediction in advance, "
        "and `closed_form_verdict` says whether",
        f"stages 2 to 4 end within {POINTS:g} of it, whatever the setting must show; the others",
        "test whether norm, angle and measurement are consistent. `law_…` are errors of the law",
        "fed with all measured moments, `law_gradient_alone` of the law fed with ‖g̃‖² instead of",
        "h̃, and empty for AdamW, whose h̃ is the square of its preconditioned step. AdamW's law is",
        "also told how preconditioned gradients lie to the weight, but not what a gradient that is",
        "not orthogonal to the weight itself would add. The classifier, which is not",
        "scale-invariant, is scored as if it were. `top1_before_drop_n` is the accuracy after the",
        "last step of stage n, `top1_after_drop_n` one step later, rescaling included,",
        "`top1_margin_drop_n` the largest change by one of the four steps before. What each",
        "setting must show:",
        "",
        *criteria,
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
