"""``python -m benchmarks speed measure``: what one measured step costs.

The probe at interval 1, beside the way research code logs angles, Cockpit's update size where
it is installed, and what memory allows, on the parameters of ResNet-50, Mask R-CNN and GPT-2 with
random gradients. All take turns on the same weights and optimizer state, and only their hooks
are timed, not the optimizer's step between them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from benchmarks.provenance import provenance
from benchmarks.speed.forms import report as forms_report
from benchmarks.speed.forms import time_forms
from benchmarks.speed.methods import (
    CockpitLogger,
    LeanLogger,
    PeerLogger,
    TorchCopy,
    WeightCopy,
    cockpit_is_there,
    how_sums_are_done,
    matrices,
)
from benchmarks.speed.parameter_sets import SETS, random_parameters
from benchmarks.speed.stopwatch import (
    Method,
    Named,
    Stopwatch,
    between_marks,
    peak_memory,
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
from smd_hooks import StepProbe

OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, 1e-3, 0.9, weight_decay=1e-4),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, 1e-3, weight_decay=0.1),
}
MOVED, COPIED = 24, 8
"""Bytes a weight that must move: before the step it is read and a copy written; after it copy,
weight, gradient and momentum are read. A copy alone moves eight, and tells how fast they can."""
PROBE, PEER, LEAN = "probe", "peer", "lean peer"
COPY, TORCH_COPY, FLOOR = "copy", "copy by torch", "floor"
TARGETS = {PEER: 1 / 3, LEAN: 1 / 3, FLOOR: 2.0, TORCH_COPY: 3.0}
"""The probe's cost over these, at most."""
SHARE_TARGET = {"cuda": 0.005, "cpu": 0.02}
"""The probe's cost over a ResNet-50 training step's, at most."""
BATCH = {"cuda": 256, "cpu": 16}
ROUNDS = 15


@cache
def methods() -> dict[str, Method]:
    """Return what is timed, by name."""
    found: dict[str, Method] = {
        PROBE: StepProbe,
        PEER: PeerLogger,
        LEAN: LeanLogger,
        COPY: WeightCopy,
        TORCH_COPY: TorchCopy,
    }
    return found | ({"cockpit": CockpitLogger} if cockpit_is_there() else {})


@dataclass(frozen=True)
class Cost:
    """What the methods cost on one set of parameters.

    Attributes:
        model: Name of the set.
        optimizer: Class of the optimizer.
        measured: Elements of the measured weights.
        seconds: Per method, one figure per round.
        flush: Seconds per measured step for reading the probe's samples back.
        memory: Per method, the most bytes held while its hooks run.
    """

    model: str
    optimizer: str
    measured: int
    seconds: dict[str, list[float]]
    flush: float
    memory: dict[str, int]

    def ratios(self, method: str) -> list[float]:
        """The probe's cost over another method's or the floor's, round by round."""
        name, times = (COPY, MOVED / COPIED) if method == FLOOR else (method, 1.0)
        pairs = zip(self.seconds[PROBE], self.seconds[name], strict=True)
        return [probe / (times * other) for probe, other in pairs]


def add_parser(commands: Any) -> None:
    """Add the ``measure`` timing."""
    parser = commands.add_parser(
        "measure", help="what one measured step costs", description=__doc__
    )
    add_arguments(parser, ROUNDS)
    parser.add_argument(
        "--training-step",
        action="store_true",
        help="also the share of a real ResNet-50 training step "
        f"(batch {BATCH['cuda']} on a GPU, {BATCH['cpu']} on a CPU)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time, print Markdown; always 0: a benchmark reports."""
    started = time.monotonic()
    device = prepare(args)
    costs = [
        cost_of_a_step(model, optimizer, device, args.rounds)
        for model in args.model
        for optimizer in OPTIMIZERS
    ]
    shares = (
        share_of_training(device, BATCH[device.type], args.rounds) if args.training_step else []
    )
    times = [time_forms(model, device, args.rounds) for model in args.model]
    command = command_line("measure", args) + (" --training-step" if args.training_step else "")
    about = [
        *provenance(command, time.monotonic() - started),
        f"- threads: {torch.get_num_threads()}",
        f"- the probe's sums: {how_sums_are_done(device)}",
    ]
    lines = [*report(about, costs, shares, device), "", *forms_report(times, device)]
    print("\n".join(lines))
    if args.json:
        figures = {
            "about": about,
            "targets": TARGETS,
            "costs": [asdict(cost) for cost in costs],
            "training_step_shares": shares,
            "forms": [asdict(one) for one in times],
        }
        write_json(args.json, figures)
    return 0


def cost_of_a_step(model: str, optimizer: str, device: torch.device, rounds: int) -> Cost:
    """Time every method on one set of parameters, taking turns step by step."""
    named = random_parameters(SETS[model](), device)
    parameters = [parameter for _, parameter in named]
    first = OPTIMIZERS[optimizer](parameters)
    twins = {name: OPTIMIZERS[optimizer](parameters) for name in methods()}
    for twin in twins.values():
        twin.state = first.state  # the same momentum, held once
    first.step()
    memory = {name: peak_memory(first, named, methods()[name], device) for name in methods()}
    seconds, flush = time_in_turns(twins, named, device, rounds)
    measured = sum(weight.numel() for weight in matrices(named))
    return Cost(model, optimizer, measured, seconds, flush, memory)


def time_in_turns(
    optimizers: dict[str, Optimizer], named: Named, device: torch.device, rounds: int
) -> tuple[dict[str, list[float]], float]:
    """Time each method's hooks on its own optimizer; whoever goes first goes last next time.

    Returns:
        Seconds per method and round, and the probe's flush per measured step.
    """
    watches = {name: Stopwatch(device) for name in optimizers}
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    order = list(optimizers)
    with ExitStack() as stack:
        attached = {
            name: stack.enter_context(
                between_marks(
                    optimizer, named, methods()[name], watches[name].mark, watches[name].mark
                )
            )
            for name, optimizer in optimizers.items()
        }
        probe = attached[PROBE]
        assert isinstance(probe, StepProbe)
        for turn in range(WARM_UP + rounds):
            for name in order:
                is_guarded = name == PROBE and turn >= WARM_UP  # first it is compiled and tried
                with without_synchronisation(device) if is_guarded else nullcontext():
                    optimizers[name].step()
                seconds[name].append(watches[name].read())
            order = order[1:] + order[:1]
        began = time.perf_counter()
        probe.drain()
        flush = (time.perf_counter() - began) / (WARM_UP + rounds)
    return {name: figures[WARM_UP:] for name, figures in seconds.items()}, flush


def share_of_training(device: torch.device, batch: int, steps: int, side: int = 224) -> list[float]:
    """Time the probe inside real training steps of ResNet-50, bf16 on a GPU.

    Args:
        device: Where to train.
        batch: Images per step.
        steps: Timed steps.
        side: Height and width of the images.

    Returns:
        Per step, the probe's time over the rest of the step's.
    """
    import torchvision.models

    network = torchvision.models.resnet50().to(device, memory_format=torch.channels_last)
    images = torch.randn(batch, 3, side, side, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(1000, (batch,), device=device)
    optimizer = OPTIMIZERS["SGD"](network.parameters())
    named = list(network.named_parameters())
    hooks, whole = Stopwatch(device), Stopwatch(device)
    shares = []
    with between_marks(optimizer, named, StepProbe, hooks.mark, hooks.mark):
        for step in range(WARM_UP + steps):
            with without_synchronisation(device) if step >= WARM_UP else nullcontext():
                whole.mark()
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    loss = cross_entropy(network(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                whole.mark()
            measuring, total = hooks.read(), whole.read()
            if step >= WARM_UP:
                shares.append(measuring / (total - measuring))
    return shares


def report(
    about: Sequence[str], costs: Sequence[Cost], shares: Sequence[float], device: torch.device
) -> list[str]:
    """Put the figures into lines of Markdown."""
    lines = [
        "# The cost of one measured step",
        "",
        *about,
        "",
        "Milliseconds per step: median (10th to 90th percentile of the rounds). Ratios are taken",
        "round by round. Memory is the most that is held while the hooks run, in copies of the",
        "measured weights. The floor is the time that the bytes which must move take at the copy's",
        "speed. The flush, per measured step, is what reading the samples back costs.",
        "",
        f"| model | optimizer | measured | {' | '.join(methods())} | flush "
        + "".join(f"| {PROBE}/{name} (≤ {limit:.3g}) " for name, limit in TARGETS.items())
        + f"| memory: {', '.join(methods())} |",
        "|" + " --- |" * (5 + len(methods()) + len(TARGETS)),
    ]
    for cost in costs:
        times = " | ".join(spread(cost.seconds[name], 1e3) for name in methods())
        ratios = " | ".join(
            f"{spread(cost.ratios(name))} {verdict(cost.ratios(name), limit)}"
            for name, limit in TARGETS.items()
        )
        memory = ", ".join(f"{cost.memory[name] / (4 * cost.measured):.2f}" for name in methods())
        lines.append(
            f"| {cost.model} | {cost.optimizer} | {cost.measured / 1e6:.1f} M | {times} "
            f"| {cost.flush * 1e3:.3g} | {ratios} | {memory} |"
        )
    lines += [
        "",
        f"- {PROBE}: `StepProbe` at interval 1",
        f"- {PEER}: per parameter clone, torch's cosine_similarity, acos, two norms and `.item()`",
        f"- {LEAN}: the same with a cosine by hand; the floor over it is what the probe",
        f"  could reach at best: {spread(_floors(costs, LEAN))}, over the {PEER} "
        f"{spread(_floors(costs, PEER))}",
        f"- {COPY}: the measured weights into buffers that are there already, past the caches;",
        f"  {TORCH_COPY}: through them",
        f"- {FLOOR}: {MOVED} bytes a weight; a copy moves {COPIED}",
        "- cockpit: its UpdateSize, the norm of each tensor's update alone"
        + ("" if "cockpit" in methods() else ": not installed, not measured"),
    ]
    batch, limit = BATCH[device.type], SHARE_TARGET[device.type]
    if shares:
        lines.append(
            f"- share of a ResNet-50 training step at batch {batch} (≤ {limit:.0%}): "
            f"{spread(shares, 100)} % {verdict(shares, limit)}"
        )
    else:
        lines.append("- share of a ResNet-50 training step: not measured (`--training-step`)")
    if device.type != "cuda":
        lines.append("- on a GPU: not measured")
    else:
        lines.append("- no measured step waited for the GPU (torch.cuda.set_sync_debug_mode)")
    return lines


def _floors(costs: Sequence[Cost], method: str) -> list[float]:
    """The floor over a method's cost, of all rounds."""
    return [
        one / other
        for cost in costs
        for one, other in zip(cost.ratios(method), cost.ratios(FLOOR), strict=True)
    ]
