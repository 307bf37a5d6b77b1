"""The command: what there is to do, done, and told.

Runs that finished are not run again and those that broke off go on, as their own records
say; a run whose config has changed since is refused. Runs that another sweep trains are waited
for. Tuned experiments are first tuned, then run on their seeds.
"""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.demo import DATA
from benchmarks.engines import slurm
from benchmarks.engines.elsewhere import wait_for_one
from benchmarks.engines.local import train
from benchmarks.engines.training import Training, is_taken, write_plan
from benchmarks.errors import UsageError
from benchmarks.launch import preflight
from benchmarks.pipelines import mmcv_ops
from benchmarks.pipelines.demo_data.digits import write_digits
from benchmarks.pipelines.demo_data.scenes import write_scenes
from benchmarks.pipelines.demo_data.text import write_text
from smd_hooks.analysis import Run

from .arguments import add_arguments, command_line
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
    add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run a suite and tell what it shows; 1 if a run failed."""
    console, started = Console(), time.monotonic()
    suite = load_suite(args.suite)
    if find_spec("mmcv") is not None:  # before a config imports mmdet
        mmcv_ops.install()
    seeds = list(dict.fromkeys(args.seeds))
    studies, not_run = studies_of(suite, args.only, seeds, args.replica, args.cfg_options)
    root = _root(suite.name, args.replica, args.work_dir)
    if args.slurm and args.engine != "slurm":
        raise UsageError("--slurm has options of sbatch: add --engine slurm")
    gpus = _visible_gpus()
    there = runs_below(root)
    wanted = _wanted(studies, there)
    standings = _standings(wanted, there, root)
    if args.dry_run:
        for study in studies:
            console.out(*_describe(study, there, standings), sep="\n", highlight=False)
        for name, reason in not_run.items():
            console.out(f"{name}: not run, {reason}", highlight=False)
        return 0
    if not args.no_train and args.engine == "local":
        _check_gpus([one for one in wanted if standings[one.name].is_to_train], len(gpus))
    if args.results:
        _make_folder(args.results)
    trained = [] if args.no_train else _train(studies, there, root, args, gpus, console)
    command = shlex.join(["python", "-m", "benchmarks", "sweep", *command_line(args)])
    outcome = Outcome(suite, studies, not_run, root)
    outcome.show(console)
    if args.results:
        outcome.write(args.results, command, time.monotonic() - started, len(trained))
        console.print(f"wrote tables and README.md to {args.results}")
    failed = _failed(studies, outcome.there, args.no_train)
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


def _standings(
    wanted: Iterable[SweepRun], there: Mapping[str, Run], root: Path
) -> dict[str, Standing]:
    """How all stand, by name."""
    return {
        one.name: standing_of(one, there.get(one.name), is_taken(root / one.name)) for one in wanted
    }


def _train(
    studies: Sequence[Study],
    there: Mapping[str, Run],
    root: Path,
    args: argparse.Namespace,
    gpus: Sequence[str],
    console: Console,
) -> list[str]:
    """Train what is left, longest first; again as long as tuning, or others, bring new runs."""
    tried: list[str] = []
    begun: list[Training] = []
    while True:
        wanted = _wanted(studies, there)
        standings = _standings(wanted, there, root)
        left = [r for r in wanted if standings[r.name].is_to_train and r.name not in tried]
        alive = [r for r in wanted if standings[r.name] is Standing.RUNNING]
        left.sort(key=lambda one: one.steps, reverse=True)
        _prepare(left, root, args)
        trainings = {
            one.name: one.training(
                root, args.cfg_options, resume=standings[one.name] is not Standing.NEW
            )
            for one in wanted
        }
        told = {*tried, *(one.name for one in alive)}  # others, or the engine, say more of these
        _plan(root, [trainings[one.name] for one in wanted if one.name not in told])
        if left or (alive and args.engine == "slurm" and not begun):
            console.print(f"{len(left)} runs to train, {len(wanted) - len(left)} there: {root}")
            # of those that run already some may be in the queue, from this sweep's last start
            queued = alive if args.engine == "slurm" and not begun else []
            begun = [trainings[one.name] for one in [*queued, *left]]
            _engine(args, gpus)(begun)
            tried += [training.name for training in begun if not training.elsewhere]
        elif alive:
            console.print(f"waiting for {len(alive)} that others train: {root}")
            wait_for_one([trainings[one.name] for one in alive], lambda one: one.is_alive)
        else:
            return tried
        there = runs_below(root)


def _engine(
    args: argparse.Namespace, gpus: Sequence[str]
) -> Callable[[Sequence[Training]], list[Training]]:
    if args.engine == "slurm":
        return lambda trainings: slurm.train(trainings, args.slurm, args.jobs, args.retries)
    return lambda trainings: train(trainings, args.jobs, gpus, args.retries)


def _prepare(runs: Sequence[SweepRun], root: Path, args: argparse.Namespace) -> None:
    """Write what runs need, and find out before hours are spent that they lack something."""
    if args.replica == []:
        _write_demo_data(runs)
    _check_first(runs, root)
    for one in runs:
        one.write_config(root)


def _plan(root: Path, trainings: Sequence[Training]) -> None:
    try:
        write_plan(trainings)
    except OSError as error:
        why = error.strerror or error
        raise UsageError(
            f"--work-dir {root}: cannot be written to: {why}; choose another"
        ) from None


def _write_demo_data(runs: Sequence[SweepRun]) -> None:
    writers = {"classification": write_digits, "detection": write_scenes, "language": write_text}
    for task in {run.task for run in runs}:
        writers[task](DATA)


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
            lines.append(f"{one.name} is being trained (see {run.folder})")
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
