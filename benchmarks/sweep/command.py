"""The command: what there is to do, done, and told.

Runs that finished are not run again and those that broke off go on, as their own records
say; a run whose config has changed since is refused. Tuned experiments are first tuned,
then run on their seeds.
"""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.demo import DATA
from benchmarks.engines.local import train, write_plan
from benchmarks.errors import UsageError
from benchmarks.launch import preflight
from benchmarks.pipelines import mmcv_ops
from benchmarks.pipelines.demo_data.digits import write_digits
from benchmarks.pipelines.demo_data.scenes import write_scenes
from smd_hooks.analysis import Run
from smd_hooks.records.state import DEAD_AFTER

from .plan import SweepRun
from .results import Outcome
from .standing import Standing, diverged, runs_below, standing_of
from .studies import Study, studies_of
from .suite import load_suite


def add_parser(commands: Any) -> None:
    """Add the ``sweep`` command."""
    parser = commands.add_parser(
        "sweep", help="run a suite: every experiment, role, option and seed", description=__doc__
    )
    parser.add_argument("suite", type=Path, help="a file of suites/")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run")
    parser.add_argument(
        "--replica",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="time-scaled: on data sets in ImageNet's or COCO's layout; without one, small "
        "networks on the demo's digits",
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
        help="trainings at a time; default: as many as there are GPUs for, else one per core",
    )
    parser.add_argument("--no-train", action="store_true", help="tell of what is there")
    parser.add_argument("--results", type=Path, metavar="DIR", help="write tables and README here")
    parser.set_defaults(run=run)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of trainings")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run a suite and tell what it shows; 1 if a run failed."""
    console, started = Console(), time.monotonic()
    suite = load_suite(args.suite)
    if find_spec("mmcv") is not None:  # before a config imports mmdet
        mmcv_ops.install()
    seeds = list(dict.fromkeys(args.seeds))
    studies, not_run = studies_of(suite, args.only, seeds, args.replica, args.cfg_options)
    root = _root(suite.name, args.replica, args.work_dir)
    gpus = _visible_gpus()
    there = runs_below(root)
    wanted = _wanted(studies, there)
    standings = {one.name: standing_of(one, there.get(one.name)) for one in wanted}
    if args.dry_run:
        for study in studies:
            console.out(*_describe(study, there, standings), sep="\n", highlight=False)
        for name, reason in not_run.items():
            console.out(f"{name}: not run, {reason}", highlight=False)
        return 0
    if not args.no_train:
        _check_gpus([one for one in wanted if standings[one.name].is_to_train], len(gpus))
    if args.results:
        _make_folder(args.results)
    trained = [] if args.no_train else _train(studies, root, args, gpus, console)
    command = shlex.join(["python", "-m", "benchmarks", "sweep", *_command_line(args)])
    outcome = Outcome(suite, studies, not_run, root)
    outcome.show(console)
    if args.results:
        outcome.write(args.results, command, time.monotonic() - started, len(trained))
        console.print(f"wrote tables and README.md to {args.results}")
    failed = _failed(studies, runs_below(root), args.no_train)
    for line in failed:
        console.print(line, style="red", highlight=False, markup=False)
    return 1 if failed else 0


def _root(suite: str, replica: Sequence[Path] | None, given: Path | None) -> Path:
    """Where runs go: replicas on other data are other runs of the same names."""
    data = [] if replica is None else ["replica", *(folder.resolve().name for folder in replica)]
    return given or Path("work_dirs") / "-".join([suite, *data])


def _visible_gpus() -> list[str]:
    """Return what ``CUDA_VISIBLE_DEVICES`` calls the GPUs, or would."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (named.split(",") if named else [str(number) for number in range(count)])[:count]


def _check_gpus(runs: Iterable[SweepRun], visible: int) -> None:
    """Refuse what would be another batch at the same learning rate, and called full size."""
    for one in runs:
        if one.processes > max(1, visible):
            raise UsageError(
                f"{one.experiment} is made for {one.launched_on}, {visible} "
                f"{'is' if visible == 1 else 'are'} visible: run it where there are as many, start "
                f"{one.source.path} by torchrun on several machines, or scale it down by --replica"
            )


def _make_folder(folder: Path) -> None:
    """Find out before hours are spent that results have no place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--results {folder}: {error.strerror}; choose another") from None


def _wanted(studies: Iterable[Study], there: Mapping[str, Run]) -> list[SweepRun]:
    """All runs that are known by now: tuned ones as soon as their tuning is over."""
    return [one for study in studies for one in study.runs(there)]


def _train(
    studies: Sequence[Study],
    root: Path,
    args: argparse.Namespace,
    gpus: Sequence[str],
    console: Console,
) -> list[str]:
    """Train what is left, longest first; again as long as tuning brings new runs."""
    tried: list[str] = []
    while True:
        there = runs_below(root)
        wanted = _wanted(studies, there)
        standings = {one.name: standing_of(one, there.get(one.name)) for one in wanted}
        resumed = {name for name, standing in standings.items() if standing is not Standing.NEW}
        trainings = {
            one.name: one.training(root, args.cfg_options, one.name in resumed) for one in wanted
        }
        alive = {name for name, standing in standings.items() if standing is Standing.RUNNING}
        write_plan([one for name, one in trainings.items() if name not in alive])
        left = [r for r in wanted if standings[r.name].is_to_train and r.name not in tried]
        if not left:
            return tried
        if args.replica == []:
            _write_demo_data(left)
        _check_first(left, root)
        for one in left:
            one.write_config(root)
        left.sort(key=lambda one: one.steps, reverse=True)
        console.print(f"{len(left)} runs to train, {len(wanted) - len(left)} there: {root}")
        train([trainings[one.name] for one in left], args.jobs, gpus)
        tried += [one.name for one in left]


def _write_demo_data(runs: Sequence[SweepRun]) -> None:
    if any(run.detects for run in runs):
        write_scenes(DATA)
    if not all(run.detects for run in runs):
        write_digits(DATA)


def _check_first(runs: Sequence[SweepRun], root: Path) -> None:
    """Find out before hours are spent that an experiment has no data, by one run of each."""
    for one in {run.experiment: run for run in reversed(runs)}.values():
        config = one.config
        config.work_dir = str(root / one.name)
        try:
            preflight.check(config)
        except UsageError as error:
            raise UsageError(f"{one.experiment}: {error}") from None


def _failed(studies: Sequence[Study], there: Mapping[str, Run], may_be_missing: bool) -> list[str]:
    """Say in a line each what has failed, and what for that reason was not run."""
    lines = []
    for one in _wanted(studies, there):
        run = there.get(one.name)
        if run is None:
            lines += [] if may_be_missing else [f"{one.name} left nothing on disk"]
        elif run.status == "running":
            lines.append(
                f"{one.name} is being trained already, and was left alone; if that was killed, it "
                f"counts as dead after {DEAD_AFTER:.0f} s without a sign of life (see {run.folder})"
            )
        elif run.status != "finished" and not (one.explores and diverged(run)):
            lines.append(f"{one.name} {run.status}: {run.failure or 'no word'} (see {run.folder})")
    for study in studies:
        for role in [] if may_be_missing else study.untuned(there):
            lines.append(
                f"{study.experiment.name}, {role}: not run on its seeds, for no value was tuned: "
                "a trial broke off, or none was of use"
            )
    return lines


def _describe(
    study: Study, there: Mapping[str, Run], standings: Mapping[str, Standing]
) -> list[str]:
    experiment = study.experiment
    lines = [f"{experiment.name} ({experiment.figure})"]
    lines += [f"  {line}" for line in study.scales]
    runs = study.runs(there)
    machines = dict.fromkeys(one.launched_on for one in runs if not one.source.is_replica)
    lines += [f"  each on {' or '.join(machines)}"] if machines else []
    for one in runs:
        options = "".join(f" {key}={value:g}" for key, value in one.settings.items())
        standing = standings[one.name].value
        lines.append(f"  {standing:10} {one.name}: {one.source.path}{options}")
    return lines + [f"  {line}" for line in study.waiting(there)]


def _command_line(args: argparse.Namespace) -> list[str]:
    words = [str(args.suite)]
    if args.replica is not None:
        words += ["--replica", *map(str, args.replica)]
    for name in ("only", "seeds", "cfg_options"):
        if getattr(args, name):
            words += [f"--{name.replace('_', '-')}", *map(str, getattr(args, name))]
    for name in ("work_dir", "jobs", "results"):
        if getattr(args, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return words + (["--no-train"] if args.no_train else [])
