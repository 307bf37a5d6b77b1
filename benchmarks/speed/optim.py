"""``python -m benchmarks speed optim``: what one step of each optimizer costs.

Ours, fast and as readable references, beside torch's, timm's and lion-pytorch's (where they
are installed also pytorch_optimizer's and heavyball's), and beside what memory allows, on the
parameters of ResNet-50, Mask R-CNN and GPT-2 with random gradients. All take turns on the same
weights in one process, which takes memory for about thirty-five copies of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from benchmarks.provenance import provenance
from benchmarks.speed.optimizers import (
    COPY,
    FAST,
    REFERENCE,
    WEIGHT_DECAY,
    YARDSTICKS,
    Contender,
    Groups,
    contenders,
    group_per_parameter,
    not_installed,
    two_groups,
)
from benchmarks.speed.parameter_sets import SETS, random_parameters
from benchmarks.speed.stopwatch import (
    Stopwatch,
    memory_kept,
    memory_peaks,
    without_synchronisation,
)
from benchmarks.speed.timing import (
    WARM_UP,
    add_arguments,
    command_line,
    prepare,
    spread,
    verdict,
    write_json,
)

ROUNDS = 15
GROUPINGS = {
    "two groups (matrices, others)": two_groups,
    "a group per parameter": group_per_parameter,
}
ALSO_PER_PARAMETER = ("resnet50",)
"""Sets that are timed in both groupings, the others in the first only."""
REFERENCE_ROUNDS = 3
"""References take part in the first rounds only: they are slow, and no limit is about them."""


@dataclass(frozen=True)
class StepTimes:
    """What the steps cost on one set of parameters.

    Attributes:
        model: Name of the set.
        grouping: How its parameters are put into groups.
        parameters: Number of its tensors.
        elements: Number of their elements.
        seconds: Per ``"optimizer, form"``, one figure per round that it took part in.
        kept: Likewise, memory kept between steps, in copies of the weights.
        passing: Likewise, the most that a later step takes beside that and gives back.
    """

    model: str
    grouping: str
    parameters: int
    elements: int
    seconds: dict[str, list[float]]
    kept: dict[str, float]
    passing: dict[str, float]

    def ratios(self, step: str, yardstick: str) -> list[float]:
        """A step's cost over a yardstick's, round by round from the first."""
        pairs = zip(self.seconds[step], self.seconds[yardstick], strict=False)
        return [ours / theirs for ours, theirs in pairs]

    def over_the_floor(self, row: Contender) -> list[float]:
        """A step's cost over that of moving the bytes that it must, as fast as a copy's."""
        return [ratio * COPY.moved / row.moved for ratio in self.ratios(row.step, COPY.step)]


def add_parser(commands: Any) -> None:
    """Add the ``optim`` timing."""
    parser = commands.add_parser(
        "optim", help="what one step of each optimizer costs", description=__doc__
    )
    add_arguments(parser, ROUNDS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time, print Markdown; always 0: a benchmark reports."""
    started = time.monotonic()
    device = prepare(args)
    rows = contenders()
    results = [
        time_steps(model, grouping, rows, device, args.rounds)
        for model in args.model
        for grouping in list(GROUPINGS)[: 2 if model in ALSO_PER_PARAMETER else 1]
    ]
    about = [
        *provenance(command_line("optim", args), time.monotonic() - started),
        f"- threads: {torch.get_num_threads()}",
    ]
    print("\n".join(report(about, results, rows, device)))
    if args.json:
        limits = {row.step: row.limits[device.type] for row in rows if row.limits}
        steps = [asdict(result) for result in results]
        write_json(args.json, {"about": about, "limits": limits, "steps": steps})
    return 0


def time_steps(
    model: str, grouping: str, rows: Sequence[Contender], device: torch.device, rounds: int
) -> StepTimes:
    """Time every contender on one set of parameters."""
    named = random_parameters(SETS[model](), device)
    elements = sum(parameter.numel() for _, parameter in named)
    builds = list(dict.fromkeys(row.build for row in rows))
    begin = [partial(_first_step, build, GROUPINGS[grouping](named)) for build in builds]
    begun = dict(zip(builds, memory_kept(begin, device), strict=True))
    steps = {row: getattr(begun[row.build][0], row.method) for row in rows}
    seconds = time_in_turns(steps, device, rounds)
    weights = 4 * elements
    kept = {row.step: begun[row.build][1] / weights for row in rows}
    peaks = zip(steps, memory_peaks(list(steps.values()), device), strict=True)
    passing = {row.step: peak / weights for row, peak in peaks}
    return StepTimes(model, grouping, len(named), elements, seconds, kept, passing)


def _first_step(build: Callable[[Groups], Optimizer], groups: Groups) -> Optimizer:
    optimizer = build(groups)
    optimizer.step()
    return optimizer


def time_in_turns(
    steps: Mapping[Contender, Callable[[], Any]], device: torch.device, rounds: int
) -> dict[str, list[float]]:
    """Time each step once a round; whoever goes first goes last next time."""
    watch = Stopwatch(device)
    seconds: dict[str, list[float]] = {row.step: [] for row in steps}
    order = list(steps)
    for turn in range(-WARM_UP, rounds):
        for row in order:
            if row.form == REFERENCE and turn >= REFERENCE_ROUNDS:
                continue
            is_guarded = row.form == FAST and turn >= 0
            with without_synchronisation(device) if is_guarded else nullcontext():
                watch.mark()
                steps[row]()
                watch.mark()
            seconds[row.step].append(watch.read())
        order = order[1:] + order[:1]
    return {step: figures[WARM_UP:] for step, figures in seconds.items()}


def report(
    about: Sequence[str],
    results: Sequence[StepTimes],
    rows: Sequence[Contender],
    device: torch.device,
) -> list[str]:
    """Put the figures into lines of Markdown."""
    lines = [
        "# The cost of one optimizer step",
        "",
        *about,
        "",
        "Milliseconds per step: median (10th to 90th percentile of the rounds). Ratios are taken",
        "round by round; where one has a limit, its median is held to it. The floor is the time",
        "that the bytes a step must move take at the copy's speed. Kept is the memory that an",
        "optimizer holds between steps, passing the most that a step takes beside it, both in",
        "copies of the weights.",
        "",
        *summary(results, rows, device),
    ]
    for result in results:
        lines += ["", *_table(result, rows, device)]
    return [
        *lines,
        "",
        "- fast: `step()`; reference: `reference_step()`, the readable form that the fast one is",
        f"  held equal to, in the first {REFERENCE_ROUNDS} rounds only",
        "- in RotationalUpdate: what `RotationalUpdateHook` makes of that optimizer's step",
        "- copy: all weights into buffers that are there already, past the caches",
        *(f"- {peer}: not installed, not measured" for peer in not_installed()),
        f"- weight decay {WEIGHT_DECAY:g} on matrices; random gradients, the same in every step",
    ]


def summary(
    results: Sequence[StepTimes], rows: Sequence[Contender], device: torch.device
) -> list[str]:
    """Say how many limits hold on this device, which ones fail, and what was not measured."""
    verdicts = {
        f"{row.step} / {yardstick}, {result.model}, {result.grouping}": verdict(
            result.ratios(row.step, yardstick), limit
        )
        for result in results
        for row in rows
        for yardstick, limit in row.limits.get(device.type, {}).items()
    }
    failing = [f"- FAILS: {name}" for name, said in verdicts.items() if said == "FAILS"]
    lines = [f"- limits: {len(verdicts) - len(failing)} of {len(verdicts)} hold", *failing]
    if device.type == "cuda":
        return [
            *lines,
            "- no fast step waited for the GPU (torch.cuda.set_sync_debug_mode)",
            "- a step begins in an empty stream: its time holds what the host takes to launch it",
        ]
    return [*lines, "- on a GPU: not measured"]


def _table(result: StepTimes, rows: Sequence[Contender], device: torch.device) -> Iterator[str]:
    size = f"{result.elements / 1e6:.1f} M in {result.parameters} tensors"
    yield f"## {result.model}: {size}, {result.grouping}"
    yield ""
    over = " | ".join(f"/ {yardstick}" for yardstick in YARDSTICKS)
    yield f"| optimizer | form | ms per step | / floor | {over} | kept | passing |"
    yield f"|{' --- |' * (6 + len(YARDSTICKS))}"
    for row in rows:
        limits = row.limits.get(device.type, {})
        ratios = " | ".join(
            _judged(result.ratios(row.step, yardstick), limits.get(yardstick))
            for yardstick in YARDSTICKS
        )
        cost = spread(result.seconds[row.step], 1e3)
        floor = spread(result.over_the_floor(row))
        memory = f"{result.kept[row.step]:.2f} | {result.passing[row.step]:.2f}"
        yield f"| {row.name} | {row.form} | {cost} | {floor} | {ratios} | {memory} |"


def _judged(ratios: Sequence[float], limit: float | None) -> str:
    figures = spread(ratios)
    return figures if limit is None else f"{figures} ≤ {limit:g} {verdict(ratios, limit)}"
