"""The forms that the probe's one pass over the tensors could take, beside each other.

The library takes the fastest that is exact: C on a CPU, Triton on a GPU. Here stand the others,
on the same tensors in the same run, each with how far its sums are from the reference's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.speed.parameter_sets import SETS, random_parameters
from benchmarks.speed.stopwatch import Stopwatch
from benchmarks.speed.timing import WARM_UP, spread
from smd_hooks.measure import c_sums, fused
from smd_hooks.measure.c_sums import Vectors
from smd_hooks.measure.fused import one_by_one
from smd_hooks.measure.geometry import step_sums
from smd_hooks.measure.parameters import is_measurable

Form = Callable[[Sequence[Vectors]], Tensor]
REFERENCE, LOOP, FOREACH, COMPILED = (
    "reference: float64, one weight after the other",
    "a loop over dot products, float32",
    "foreach, float32",
    "compiled by torch",
)


@dataclass(frozen=True)
class FormTimes:
    """What each form took on one set of parameters.

    Attributes:
        model: Name of the set.
        seconds: By form, one figure per round.
        error: By form, the largest difference of a weight's sums from the reference's, over
            the length of that weight's six sums.
    """

    model: str
    seconds: dict[str, list[float]]
    error: dict[str, float]


def forms(device: torch.device) -> dict[str, Form]:
    """Return all that work on a device, the library's own first."""
    own = c_sums.load() if device.type == "cpu" else fused.load_triton(torch.float32, device)
    compiled = torch.compile(step_sums, dynamic=True)
    found: dict[str, Form] = {} if own is None else {_own_name(device): own}
    return found | {
        COMPILED: lambda steps: torch.stack([compiled(*vectors) for vectors in steps]),
        FOREACH: _foreach,
        LOOP: lambda steps: torch.stack([_dots(*vectors) for vectors in steps]),
        REFERENCE: one_by_one,
    }


def time_forms(model: str, device: torch.device, rounds: int) -> FormTimes:
    """Time all forms on one set of parameters, taking turns."""
    steps: list[Vectors] = []
    for _, weight in random_parameters(SETS[model](), device):
        if is_measurable(weight):
            before, gradient = weight.detach().flatten(), weight.grad
            assert gradient is not None
            moved = before - 1e-4 * gradient.flatten()
            steps.append((before, moved, gradient.flatten(), torch.randn_like(before)))
    watch, found = Stopwatch(device), forms(device)
    seconds: dict[str, list[float]] = {name: [] for name in found}
    order = list(found)
    for _ in range(WARM_UP + rounds):
        for name in order:
            watch.mark()
            found[name](steps)
            watch.mark()
            seconds[name].append(watch.read())
        order = order[1:] + order[:1]
    wanted = one_by_one(steps)
    scale = torch.linalg.vector_norm(wanted, dim=1, keepdim=True)
    error = {
        name: float(((form(steps) - wanted).abs() / scale).max()) for name, form in found.items()
    }
    return FormTimes(model, {name: times[WARM_UP:] for name, times in seconds.items()}, error)


def report(times: Sequence[FormTimes], device: torch.device) -> list[str]:
    """Put the figures into lines of Markdown."""
    own = _own_name(device)
    lines = [
        "## The pass over the tensors by itself, in each form that it could take",
        "",
        "Milliseconds per step. The error is that of a weight's six sums, over their length.",
        "",
        "| model | form | ms | over the library's own | error |",
        "|" + " --- |" * 5,
    ]
    for one in times:
        for name, seconds in one.seconds.items():
            ours = one.seconds.get(own)
            pairs = zip(seconds, ours or seconds, strict=True)
            ratio = spread([form / base for form, base in pairs]) if ours and name != own else ""
            cost, error = spread(seconds, 1e3), f"{one.error[name]:.1g}"
            lines.append(f"| {one.model} | {name} | {cost} | {ratio} | {error} |")
    return lines


def _own_name(device: torch.device) -> str:
    return "the library's, in C" if device.type == "cpu" else "the library's, in Triton"


def _dots(before: Tensor, after: Tensor, gradient: Tensor, buffer: Tensor | None) -> Tensor:
    assert buffer is not None
    update = after - before
    pairs = [(before, before), (before, update), (update, update), (gradient, gradient)]
    pairs += [(before, gradient), (buffer, gradient)]
    return torch.stack([a.dot(b) for a, b in pairs])


def _foreach(steps: Sequence[Vectors]) -> Tensor:
    before, after, gradients, buffers = (list(tensors) for tensors in zip(*steps, strict=True))
    updates = torch._foreach_sub(after, before)
    pairs = ((before, updates), (before, gradients), (buffers, gradients))
    wd, wg, bg = ([x.sum() for x in torch._foreach_mul(*pair)] for pair in pairs)
    ww, dd, gg = (
        [x.square() for x in torch._foreach_norm(list(xs))] for xs in (before, updates, gradients)
    )
    return torch.stack([torch.stack(sums) for sums in (ww, wd, dd, gg, wg, bg)], 1)
