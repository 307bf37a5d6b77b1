"""The command line of a sweep, read and written."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.engines.retries import RETRIES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``python -m benchmarks sweep`` takes."""
    parser.add_argument("suite", type=Path, help="a file of suites/")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run")
    parser.add_argument(
        "--replica",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="time-scaled: on data sets in ImageNet's, COCO's or nanoGPT's layout; without one, "
        "small networks on the demo's digits and characters",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="EXPERIMENT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="default: the suite's")
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/<suite>[-replica…]")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="a.b=c in every config"
    )
    parser.add_argument(
        "--jobs",
        type=_at_least_one,
        help="trainings at a time; default: as many as there are GPUs for, else one per core; "
        "on Slurm, as many as it lets",
    )
    parser.add_argument(
        "--engine",
        choices=["local", "slurm"],
        default="local",
        help="where to train: on this machine, or as array jobs of a Slurm cluster",
    )
    parser.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of sbatch, such as partition=gpu time=24:00:00",
    )
    parser.add_argument(
        "--retries",
        type=_at_least_none,
        default=RETRIES,
        help="how often a run may break off and be tried again, after pauses that grow; "
        f"default: {RETRIES}. One that diverged, or came no further twice, is not",
    )
    parser.add_argument("--no-train", action="store_true", help="tell of what is there")
    parser.add_argument("--results", type=Path, metavar="DIR", help="write tables and README here")


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of trainings")
    return int(text)


def _at_least_none(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no number of tries")
    return int(text)


def command_line(args: argparse.Namespace) -> list[str]:
    """Return the words that :func:`add_arguments` reads as these."""
    words = [str(args.suite)]
    if args.replica is not None:
        words += ["--replica", *map(str, args.replica)]
    for name in ("only", "seeds", "cfg_options"):
        if getattr(args, name):
            words += [f"--{name.replace('_', '-')}", *map(str, getattr(args, name))]
    for name in ("work_dir", "jobs", "results"):
        if getattr(args, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    words += ["--engine", "slurm"] if args.engine == "slurm" else []
    words += ["--slurm", *args.slurm] if args.slurm else []
    words += [f"--retries={args.retries}"] if args.retries != RETRIES else []
    return words + (["--no-train"] if args.no_train else [])
