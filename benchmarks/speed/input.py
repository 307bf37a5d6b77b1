"""``python -m benchmarks speed input CONFIG``: does the input pipeline keep up with training?

In one process, taking turns: the config's own train loader with nothing behind it, its
training step on one batch that is in memory already, both together as they train, and, as a
floor, the loader over a data set that hands out one finished item for all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from benchmarks.errors import UsageError
from benchmarks.launch import preflight
from benchmarks.launch.command import Overrides, build_runner, load_config
from benchmarks.provenance import provenance
from benchmarks.speed.stopwatch import Stopwatch
from benchmarks.speed.timing import WARM_UP, write_json

BATCHES, ROUNDS = 20, 5
ABOUT_EQUAL = 0.1
"""Two speeds closer than this, relative to the larger, are called equal."""
WHAT = {
    "loader": "the config's train loader, nothing behind it",
    "step": "the training step, one batch in memory",
    "both": "both together, as they train",
    "floor": "the loader, over a data set that hands out one finished item",
}

Batch = Any
"""What a loader hands to a model: one collated batch."""
Source = Callable[[list[list[int]]], Iterator[Batch]]
"""Hands out a batch for every list of indices."""


@dataclass(frozen=True)
class Throughput:
    """How many items a second each part gets through.

    Attributes:
        workers: Processes of the loader; 0: it runs in the training process.
        batch_size: Items per batch.
        items_per_second: Per key of ``WHAT``, one figure per round.
        items: What an item is: images, or a language model's sequences.
    """

    workers: int
    batch_size: int
    items_per_second: dict[str, list[float]]
    items: str = "images"

    def median(self, what: str) -> float:
        """Items per second, the median of the rounds."""
        return float(np.median(self.items_per_second[what]))


class OneItem(Dataset[Any]):
    """A data set that costs nothing: at every index the same finished item."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __getitem__(self, index: int) -> Any:
        """Return the item."""
        return self.item


def add_parser(commands: Any) -> None:
    """Add the ``input`` timing."""
    parser = commands.add_parser(
        "input", help="the input pipeline beside the training step", description=__doc__
    )
    parser.add_argument("config", type=Path, help="a config file, old or new style")
    parser.add_argument("--batches", type=int, default=BATCHES, help="timed batches per round")
    parser.add_argument(
        "--cfg-options", nargs="+", action=Overrides, metavar="KEY=VALUE", help="a.b=c overrides"
    )
    parser.add_argument("-o", "--json", type=Path, metavar="FILE", help="write every figure there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time, print Markdown; always 0: a benchmark reports."""
    started = time.monotonic()
    if args.batches < 1:
        raise UsageError(f"--batches {args.batches}: give 1 or more")
    with tempfile.TemporaryDirectory() as work_dir:
        with redirect_stdout(sys.stderr):  # what data sets and loggers have to say
            runner = build(args.config, args.cfg_options, work_dir)
        throughput = measure(runner, args.batches)
    command = f"python -m benchmarks speed input {args.config} --batches {args.batches}"
    if args.cfg_options:
        options = " ".join(f"{key}={value}" for key, value in args.cfg_options.items())
        command += f" --cfg-options {options}"
    about = [
        *provenance(command, time.monotonic() - started),
        f"- threads of the training process: {torch.get_num_threads()}",
    ]
    print("\n".join(report(about, throughput)))
    if args.json:
        figures = {"about": about, "says": bottleneck(throughput), **asdict(throughput)}
        write_json(args.json, figures)
    return 0


def build(config: Path, cfg_options: dict[str, Any] | None, work_dir: str) -> Runner:
    """Build a config's training, without validation and hooks.

    Raises:
        UsageError: The config cannot be trained.
    """
    options = {"work_dir": work_dir, "launcher": "none", "seed": None, "cfg_options": cfg_options}
    flags = {"amp": False, "auto_scale_lr": False, "resume": None}
    cfg = load_config(argparse.Namespace(config=config, **options, **flags))
    for part in ("val_dataloader", "val_cfg", "val_evaluator"):
        cfg[part] = None
    cfg.log_level = "WARNING"
    preflight.check(cfg)
    return build_runner(cfg)


def measure(runner: Runner, batches: int) -> Throughput:
    """Time every part once a round; whoever goes first goes last next time.

    Args:
        runner: As :func:`build` returns it.
        batches: Timed batches per round and part.
    """
    loader = runner.train_dataloader
    indices = chain.from_iterable(repeat(loader.batch_sampler))  # epoch after epoch
    first = next(iter(over(loader, [next(indices)], loader.dataset)))
    empty = OneItem(loader.dataset[0])
    step = training_step(runner)
    watch = Stopwatch(next(runner.model.parameters()).device)

    def nothing(_: Batch) -> None:
        pass

    parts: dict[str, tuple[Source, Callable[[Batch], Any]]] = {
        "loader": (lambda planned: iter(over(loader, planned, loader.dataset)), nothing),
        "step": (lambda planned: repeat(first, len(planned)), step),
        "both": (lambda planned: iter(over(loader, planned, loader.dataset)), step),
        "floor": (lambda planned: iter(over(loader, planned, empty)), nothing),
    }
    figures: dict[str, list[float]] = {name: [] for name in parts}
    order = list(parts)
    for _ in range(ROUNDS):
        for name in order:
            # what the workers have under way at any time comes before and after what is timed
            under_way = loader.num_workers * (loader.prefetch_factor or 0)
            margin = WARM_UP if name == "step" else max(WARM_UP, under_way)
            planned = list(islice(indices, margin + batches + margin))
            source, consume = parts[name]
            seconds = time_batches(source(planned), consume, watch, margin, batches)
            count = sum(map(len, planned[margin : margin + batches]))
            figures[name].append(count / seconds)
        order = order[1:] + order[:1]
    items = getattr(loader.dataset, "items", Throughput.items)
    return Throughput(loader.num_workers, len(planned[0]), figures, items)


def time_batches(
    source: Iterator[Batch],
    consume: Callable[[Batch], Any],
    watch: Stopwatch,
    margin: int,
    batches: int,
) -> float:
    """Return the seconds from the end of batch ``margin`` to the end of the last timed one.

    What follows is used up untimed, so that the loader's workers are busy throughout, and idle
    when the next part is timed.
    """
    for batch in islice(source, margin):
        consume(batch)
    watch.mark()
    for batch in islice(source, batches):
        consume(batch)
    watch.mark()
    seconds = watch.read()
    for batch in source:
        consume(batch)
    return seconds


def training_step(runner: Runner) -> Callable[[Batch], Any]:
    """Return what the training loop does with a batch: to the device, forward, backward, update.

    The learning rate is a millionth of the config's: one batch over and over would be learned
    by heart, or diverge.
    """
    wrapper = runner.optim_wrapper
    for group in wrapper.optimizer.param_groups:
        group["lr"] *= 1e-6
    wrapper.initialize_count_status(runner.model, 0, runner.max_iters)
    runner.model.train()
    return lambda batch: runner.model.train_step(batch, optim_wrapper=wrapper)


def over(
    loader: DataLoader[Any], planned: list[list[int]], dataset: Dataset[Any]
) -> DataLoader[Any]:
    """Return the same loader for just these batches of indices, over a data set."""
    return DataLoader(
        dataset,
        batch_sampler=planned,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        prefetch_factor=loader.prefetch_factor,
        multiprocessing_context=loader.multiprocessing_context,
    )


def bottleneck(throughput: Throughput) -> str:
    """Say in one sentence which part is the slower, and what that costs."""
    loader, step, both = (throughput.median(what) for what in ("loader", "step", "both"))
    reached = f"training reaches {both / step:.0%} of the step's own speed"
    unit = f"{throughput.items}/s"
    speeds = f"{_figure(loader)} {unit} delivered, {_figure(step)} {unit} trained on"
    if throughput.workers == 0:
        return (
            f"Loader and step take turns in one process (num_workers=0; {speeds} by themselves): "
            f"{reached}."
        )
    if abs(loader - step) <= ABOUT_EQUAL * max(loader, step):
        return f"Input pipeline and training step are equally fast ({speeds}): {reached}."
    slower = "input pipeline" if loader < step else "training step"
    return f"The {slower} is the bottleneck ({speeds}): {reached}."


def report(about: Sequence[str], throughput: Throughput) -> list[str]:
    """Put the figures into lines of Markdown."""
    return [
        "# The input pipeline beside the training step",
        "",
        *about,
        f"- {throughput.items} per batch: {throughput.batch_size}; "
        f"loader workers: {throughput.workers}",
        "",
        bottleneck(throughput),
        "",
        "Median (10th to 90th percentile of the rounds).",
        "",
        f"| what | {throughput.items}/s |",
        "| --- | --- |",
        *(
            f"| {what} | {_spread(throughput.items_per_second[name])} |"
            for name, what in WHAT.items()
        ),
    ]


def _spread(speeds: Sequence[float]) -> str:
    low, median, high = map(_figure, np.quantile(speeds, (0.1, 0.5, 0.9)))
    return f"{median} ({low}–{high})"


def _figure(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"
