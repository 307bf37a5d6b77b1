"""``smd-hooks predict``: what a config's schedule will do, before a GPU-hour is spent."""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the ``predict`` command."""
    parser = commands.add_parser(
        "predict",
        help="what a config's schedule will do: angles, relaxation times, who gets to equilibrium",
        description=(
            "Forecasts from the config alone, without data or training. It executes the config, "
            "as every MMEngine tool does, with the current folder on the import path, and builds "
            "its model without contents."
        ),
    )
    parser.add_argument("config", help="a config file, old- or new-style; or package::path")
    parser.add_argument(
        "--iters-per-epoch",
        type=_positive,
        metavar="N",
        help="length of an epoch; default: as the training data says, if it is there",
    )
    parser.add_argument(
        "--gpus",
        type=_positive,
        metavar="N",
        help="number of processes; default: as auto_scale_lr.base_batch_size has it, or 1",
    )
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="a.b=c overrides"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the forecast, and write it; 0."""
    if find_spec("mmengine") is None:
        raise ValueError("smd-hooks predict reads MMEngine configs, and mmengine is not installed")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # custom_imports of a project, as under python -m
    from ..planning import forecast
    from ..records.whole_files import check_place, whole_file

    if args.output:
        check_place(args.output)

    found = forecast(args.config, args.iters_per_epoch, args.gpus, _overrides(args.cfg_options))
    print(found)
    if args.output:
        with whole_file(args.output) as file:
            json.dump(found.to_json(), file, indent=1)
        print(f"wrote {args.output}")
    return 0


def _overrides(pairs: list[str]) -> dict[str, Any]:
    from mmengine.config import DictAction

    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ValueError(f"--cfg-options: '{wrong[0]}' is not of the form KEY=VALUE")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    return parser.parse_args(["--cfg-options", *pairs]).cfg_options if pairs else {}


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value
