"""What all timings share: their arguments, and how figures are put into words."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.errors import UsageError
from benchmarks.speed.parameter_sets import SETS

WARM_UP = 2
"""Steps per method before the timed ones; what compiles does so there at the latest."""


def add_arguments(parser: argparse.ArgumentParser, rounds: int) -> None:
    """Add what every timing takes; ``rounds`` is the default of that argument."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--model", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default=device)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--rounds", type=int, default=rounds, help="timed steps per method")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")


def prepare(args: argparse.Namespace) -> torch.device:
    """Set the threads; return the device.

    Raises:
        UsageError: A number below 1, or a device that is not there.
    """
    if args.rounds is not None and args.rounds < 1:
        raise UsageError(f"--rounds {args.rounds}: give 1 or more")
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads {args.threads}: give 1 or more")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here; leave it out to use the CPU")
    if args.threads:
        torch.set_num_threads(args.threads)
    return torch.device(args.device)


def command_line(timing: str, args: argparse.Namespace) -> str:
    """Spell out the command that repeats a timing."""
    return (
        f"python -m benchmarks speed {timing} --model {' '.join(args.model)} "
        f"--device {args.device} --threads {torch.get_num_threads()} --rounds {args.rounds}"
    )


def write_json(file: Path, figures: dict[str, Any]) -> None:
    """Write figures to a file, in folders that need not be there yet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """Median, and 10th to 90th percentile."""
    low, median, high = np.quantile(np.asarray(values) * scale, (0.1, 0.5, 0.9))
    return f"{median:.3g} ({low:.3g}–{high:.3g})"


def verdict(ratios: Sequence[float], limit: float) -> str:
    """Whether the median keeps to its limit."""
    return "holds" if np.median(ratios) <= limit else "FAILS"
