"""``python -m benchmarks demo``: the main job, end to end, on data that pip installs.

A small BN ResNet classifies real digits: once plainly, once with its weights rescaled
at the learning-rate drop, and once under LionAR, which turns weights by a set angle. A
small BN Mask R-CNN finds digits in scenes. All are trained from scratch with Spherical
Motion Dynamics measured, in parallel as far as there are cores, and end in one table
and one picture.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.engines.local import Training, train
from benchmarks.pipelines.demo_data.digits import write_digits
from benchmarks.pipelines.demo_data.scenes import write_scenes
from benchmarks.provenance import provenance
from smd_hooks.analysis import Run, agreement_table, load_runs, predict, score, write_table
from smd_hooks.analysis.claims.control import as_if_invariant
from smd_hooks.analysis.diagnosis.diagnose import is_unit
from smd_hooks.analysis.figures import draw_angular_updates
from smd_hooks.analysis.table.formats import render_terminal

DATA = Path("data/demo")  # where the demo's configs look for it
CONFIGS = {  # the longest first, so that the others fit beside it
    "detection": "configs/demo/mask-rcnn_digits.py",
    "classification": "configs/demo/resnet_digits.py",
    "classification-rescaled": "configs/demo/resnet_digits_rescaled.py",
    "classification-lionar": "configs/demo/resnet_digits_lionar.py",
}
FIGURE_ORDER = (
    "classification",
    "classification-rescaled",
    "classification-lionar",
    "detection",
)


def add_parser(commands: Any) -> None:
    """Add the ``demo`` command."""
    parser = commands.add_parser(
        "demo", help="train the demo's four runs and show the table", description=__doc__
    )
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/demo"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train the runs, print the table, draw the picture; 1 if a run failed."""
    console = Console()
    started = time.monotonic()
    console.print(f"writing the demo's data to {DATA}")
    write_digits(DATA)
    write_scenes(DATA)
    failed = train([Training(n, config, args.work_dir / n) for n, config in CONFIGS.items()])
    for training in failed:
        console.print(f"[red]{training.name} failed[/]: {training.last_words()}")
    runs = [r for r in load_runs(args.work_dir) if r.name in CONFIGS]
    if any(r.launched for r in runs):
        _show(runs, args.work_dir, console, started)
    return 1 if failed else 0


def _show(runs: list[Run], folder: Path, console: Console, started: float) -> None:
    runs = sorted(runs, key=lambda run: FIGURE_ORDER.index(run.name))
    table = agreement_table(runs)
    write_table(table, folder / "table.csv")
    write_table(table, folder / "table.md")
    console.out(render_terminal(table, console.width), highlight=False)
    lines = [line for run in runs for line in describe_run(run)]
    console.out(*lines, sep="\n", highlight=False)
    draw_angular_updates(runs, folder / "angular_update.png")
    seconds = time.monotonic() - started
    about = provenance("python -m benchmarks demo", seconds)
    text = "\n".join(["# The demo's results", "", *about, "", "```", *lines, "```", ""])
    (folder / "README.md").write_text(text, encoding="utf-8")
    for name in ("table.csv", "table.md", "angular_update.png", "README.md"):
        console.print(f"wrote {folder / name}")
    console.print(f"the demo took {seconds:.0f} s")


def describe_run(run: Run) -> list[str]:
    """Say what is left out and why, and what Δ/Δ* did: at the learning-rate drop, or as set."""
    lines = [run.name]
    if "scale_invariant" in run.weights:
        matrices = run.weights[[is_unit(entry) for entry in run.weights.to_dict("records")]]
        left_out = matrices[[v is not True for v in matrices["scale_invariant"]]]
        for reason, group in left_out.groupby("reason", sort=False):
            names = ", ".join(name.removesuffix(".weight") for name in group["parameter"])
            lines.append(f"  not scale-invariant: {names} ({reason})")
        lines += _control(run)
    data = run.predicted
    if len(data) and run.scores["rotational"].all():
        lines.append(_as_set(run))
    elif len(data) and data["stage"].max() > 0:
        median = data.groupby("step")["angle_ratio"].median()
        last = data[data["stage"] == data["stage"].max()]
        after = median.loc[last["step"].min() :]
        before = data.loc[data["step"] < last["step"].min(), "lr"].iloc[-1]
        drop = before / last["lr"].iloc[0]
        lines.append(
            f"  Δ/Δ* (median of layers) at the lr drop by {drop:.3g}: "
            f"{after.iloc[0]:.2f} (1/√k is {drop**-0.5:.2f}), "
            f"then {after.min():.2f} to {after.max():.2f}, at the end {after.iloc[-1]:.2f}"
        )
    return lines


def _as_set(run: Run) -> str:
    """Say which angles were set, and how near to them all layers turned, at worst."""
    data = run.predicted
    angles = data.groupby("stage")["equilibrium_angle"].median()
    angle_error = (data["angle_ratio"] - 1).abs().max()
    norm_error = (run.scores["norm_ratio"] - 1).abs().max()
    return (
        f"  turned by the set angle, {' then '.join(f'{a:.2e}' for a in angles)} radians per step: "
        f"Δ misses it by {angle_error:.1e} of it in the worst window of all layers, "
        f"‖w‖ its first value by {norm_error:.1e} of that"
    )


def _control(run: Run) -> list[str]:
    """Score the weights that are not scale-invariant as if they were: that must fail.

    Not those that are turned by a set angle, which they are whatever follows them.
    """
    weights = run.weights
    others = [
        bool(entry["measured"])
        and entry["scale_invariant"] is False
        and (entry["rule"] or {}).get("type") != "Rotational"
        for entry in weights.to_dict("records")
    ]
    if not any(others) or not len(run.samples):
        return []
    pretended = as_if_invariant(weights, others)
    predicted = predict(run.samples, pretended)
    if not len(predicted) or predicted["angle_ratio"].isna().all():
        return []  # no equilibrium, without decay
    ends = predicted.groupby(["stage", "parameter"])["angle_ratio"].last().groupby("stage").median()
    error = score(predicted, pretended)["trajectory_error"].median()
    ratios = ", ".join(f"{ratio:.2f}" for ratio in ends)
    return [
        "  control, the same scores for what is not scale-invariant "
        f"(median of {sum(others)}): Δ/Δ* {ratios} at the stages' ends, "
        f"trajectory_error {error:.2f}"
    ]
