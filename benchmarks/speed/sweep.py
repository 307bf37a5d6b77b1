"""``python -m benchmarks speed sweep``: what a sweep costs beside its runs.

A suite of one experiment and many seeds is swept, one run at a time, by the real command: plan,
claims, launches, records, table and claims. Each run is a few lines of shell that leave what a
finished run leaves. The same processes are started one after the other by a bare loop, in turns
with the sweep, and the finished sweep is started once more.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from mmengine.config import Config

from benchmarks import sweep
from benchmarks.engines.training import Training
from benchmarks.errors import UsageError
from benchmarks.provenance import provenance
from benchmarks.speed.timing import spread, verdict, write_json
from benchmarks.sweep.standing import Standing, runs_below
from smd_hooks.records import RunState, write_state

RUNS, ROUNDS = 1_000, 3
MILLISECONDS = 50.0
"""Limit of what a run costs beside itself."""
STAMP = "20260101_000000"
_CONFIG = """
model = dict(type="TorchvisionClassifier", arch="resnet18")
train_dataloader = dict(batch_size=4, dataset=dict(type="torchvision.datasets.FakeData"))
train_cfg = dict(by_epoch=False, max_iters=10)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1, weight_decay=1e-4))
"""
_SUITE = """
paper = "None: for its cost alone"
experiments = [
    dict(id="cost", figure="none", runs=dict(plain={config!r}), seeds=list(range({runs})))
]
"""
_RUN = """
launch="$1/{stamp}"
mkdir -p "$launch/smd" "$launch/vis_data"
cp "{kept}/state.json" "$launch/smd/"
cp "{kept}/scalars.json" "$launch/vis_data/"
sed "s/SEED/$2/" "{kept}/config.py" >"$launch/vis_data/config.py"
echo "$launch" >"$1/last_checkpoint"
"""


def add_parser(commands: Any) -> None:
    """Add the ``sweep`` timing."""
    parser = commands.add_parser(
        "sweep", help="what a sweep costs beside its runs", description=__doc__
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of the sweep")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="sweeps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time, print Markdown; always 0: a benchmark reports."""
    started = time.monotonic()
    for name in ("runs", "rounds"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} {getattr(args, name)}: give 1 or more")
    with tempfile.TemporaryDirectory(prefix="smd-hooks-sweep-") as folder:
        seconds = measure(Path(folder), args.runs, args.rounds)
    command = f"python -m benchmarks speed sweep --runs {args.runs} --rounds {args.rounds}"
    about = provenance(command, time.monotonic() - started)
    print("\n".join(report(about, seconds, args.runs)))
    if args.json:
        write_json(args.json, {"about": about, "runs": args.runs, "seconds": seconds})
    return 0


def measure(folder: Path, runs: int, rounds: int) -> dict[str, list[float]]:
    """Time bare loops, sweeps, and sweeps that find all finished, in turns.

    Args:
        folder: An empty one.
        runs: Runs of each.
        rounds: How often each is timed.

    Returns:
        Seconds of each round, by ``bare``, ``sweep`` and ``again``.

    Raises:
        RuntimeError: A sweep has not trained each run once.
    """
    suite = _write_suite(folder, runs)
    seconds: dict[str, list[float]] = {"bare": [], "sweep": [], "again": []}
    with trivial(folder):
        for number in range(rounds):
            trainings = [_training(folder / f"bare{number}" / str(n), n) for n in range(runs)]
            seconds["bare"].append(_timed(partial(_bare_loop, trainings)))
            root = folder / f"sweep{number}"
            for what in ("sweep", "again"):
                words = [str(suite), "--work-dir", str(root), "--jobs", "1"]
                seconds[what].append(_timed(partial(_sweep, folder, words)))
            _check(root, runs)
    return seconds


@contextmanager
def trivial(folder: Path) -> Iterator[None]:
    """Have every training be a shell that leaves a finished run's files.

    Args:
        folder: Where the files to be left are kept.
    """
    kept = folder / "kept"
    kept.mkdir()
    write_state(kept, RunState("finished", 10, 10))
    (kept / "smd" / "state.json").replace(kept / "state.json")
    line = '{"accuracy/top1": 50.0, "step": 10}\n'
    (kept / "scalars.json").write_text('{"loss": 1.0, "lr": 0.1, "iter": 10, "step": 10}\n' + line)
    text = f"{Config.fromstring(_CONFIG, '.py').pretty_text}\nrandomness = dict(seed=SEED)\n"
    (kept / "config.py").write_text(text)
    script = _RUN.format(stamp=STAMP, kept=kept)

    def command(training: Training) -> list[str]:
        seed = training.options[list(training.options).index("--seed") + 1]
        return ["sh", "-c", script, "sh", str(training.work_dir), seed]

    with mock.patch.object(Training, "command", property(command)):
        yield


def _training(work_dir: Path, seed: int) -> Training:
    return Training(work_dir.name, "", work_dir, ["--seed", str(seed)])


def _write_suite(folder: Path, runs: int) -> Path:
    config, suite = folder / "config.py", folder / "cost.py"
    config.write_text(_CONFIG)
    suite.write_text(_SUITE.format(config=str(config), runs=runs))
    return suite


def _bare_loop(trainings: Sequence[Training]) -> None:
    for training in trainings:
        training.work_dir.mkdir(parents=True)
        with open(training.console_file, "ab") as console:
            subprocess.run(training.command, stdout=console, stderr=console, check=True)


def _sweep(folder: Path, words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    sweep.add_parser(parser.add_subparsers())
    args = parser.parse_args(["sweep", *words])
    with open(folder / "told", "a") as told, redirect_stdout(told):
        if args.run(args) != 0:
            raise RuntimeError(f"the sweep failed: {(folder / 'told').read_text()[-1000:]}")


def _check(root: Path, runs: int) -> None:
    """A sweep that skipped runs, or ran them twice, would be timed for nothing."""
    statuses = [run.status for run in runs_below(root).values()]
    if statuses != [Standing.FINISHED.value] * runs:
        raise RuntimeError(f"{statuses.count(Standing.FINISHED.value)} of {runs} runs finished")


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def report(about: Sequence[str], seconds: dict[str, list[float]], runs: int) -> list[str]:
    """Put the figures into lines of Markdown."""
    each = {what: [1000 * s / runs for s in rounds] for what, rounds in seconds.items()}
    beside = [swept - bare for swept, bare in zip(each["sweep"], each["bare"], strict=True)]
    limited = runs == RUNS
    limit = f" ≤ {MILLISECONDS:g}: {verdict(beside, MILLISECONDS)}" if limited else ""
    return [
        "# The cost of a sweep",
        "",
        *about,
        "",
        f"{runs} runs, one after the other, each a shell that leaves what a finished run leaves.",
        "Milliseconds per run: median (10th to 90th percentile of the rounds).",
        "",
        "| what | ms per run |",
        "| --- | --- |",
        f"| the processes in a bare loop | {spread(each['bare'])} |",
        f"| the sweep, with its table and claims | {spread(each['sweep'])} |",
        f"| what the sweep costs beside the processes, round by round | {spread(beside)}{limit} |",
        f"| the same sweep again, all finished | {spread(each['again'])} |",
        "",
        f"- rounds: {len(beside)}; in one process, so that starting python is not counted",
    ]
