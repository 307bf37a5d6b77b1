"""The learning rate of every iteration, as MMEngine's schedulers set it.

The schedulers that training would build are built, on a stand-in optimizer. Where the law of
all of them is known, it is followed (:mod:`smd_hooks.planning.scheduler_laws`); else they
are stepped, wherever they act.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.registry import PARAM_SCHEDULERS

from .scheduler_laws import changes_of, law_of, ticks_of


def read_schedule(
    schedulers: Any,
    base_lrs: Sequence[float],
    iterations: int,
    iterations_per_epoch: int | None,
    by_epoch: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Work out the learning rates of a training.

    Args:
        schedulers: ``param_scheduler`` of a config: a dict, or a list of them; None.
        base_lrs: The optimizer's different learning rates.
        iterations: Training iterations in all.
        iterations_per_epoch: Length of an epoch; needed if ``by_epoch``, and by schedulers
            that are converted from epochs.
        by_epoch: Whether the training loop counts epochs.

    Returns:
        First iteration of each stretch of constant learning rate, shape (stretches,), and
        the rates, shape (stretches, lrs).

    Raises:
        ValueError: A scheduler cannot be built, is not of the learning rate, or follows a
            metric.
    """
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in base_lrs]
    groups = [{"params": [w], "lr": lr} for w, lr in zip(weights, base_lrs, strict=True)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    built = [
        _build(config, optimizer, iterations, iterations_per_epoch, by_epoch)
        for config in _listed(schedulers)
    ]
    first = _rates(optimizer)
    events = _events(built, iterations, iterations_per_epoch, by_epoch)
    is_known = all(law_of(scheduler) for scheduler in built)
    rates = (follow_laws if is_known else step_through)(built, events, first, optimizer)
    # what happens at one iteration happens together
    at = np.append(0, events[:, 0])
    together = np.append(at[1:] != at[:-1], True)
    starts, table = at[together], np.concatenate([first[None], rates])[together]
    if not np.isfinite(table).all():
        raise ValueError(
            "the schedule's learning rate is not a number: a factor of 0 is divided by, or the "
            "optimizer's lr is none"
        )
    changes = np.append(True, (np.diff(table, axis=0) != 0).any(axis=1))
    return starts[changes], table[changes]


def _events(
    built: Sequence[Any], iterations: int, iterations_per_epoch: int | None, by_epoch: bool
) -> np.ndarray:
    """When who acts: iteration, scheduler and its own count, (events, 3), in their order."""
    found = [np.empty((0, 4), int)]
    for order, scheduler in enumerate(built):
        if scheduler.by_epoch and not by_epoch:
            continue  # an iteration-based loop ends with its only epoch
        length = (iterations_per_epoch or 1) if scheduler.by_epoch else 1
        ticks = ticks_of(scheduler, min(scheduler.end - 1, (iterations - 1) // length))
        late = np.full_like(ticks, scheduler.by_epoch)  # after those that count iterations
        found.append(np.stack([ticks * length, late, np.full_like(ticks, order), ticks], 1))
    events = np.concatenate(found)
    events = events[np.lexsort((events[:, 2], events[:, 1], events[:, 0]))]
    return events[:, [0, 2, 3]]


def follow_laws(
    built: Sequence[Any], events: np.ndarray, first: np.ndarray, optimizer: Any = None
) -> np.ndarray:
    """Rates after each event, shape (events, lrs), by the schedulers' laws."""
    a, b = np.empty((2, len(events), len(first)))
    for order, scheduler in enumerate(built):
        own = events[:, 1] == order
        a[own], b[own] = changes_of(scheduler, events[own, 2])
    rates = np.empty_like(a)
    for i, rate in enumerate(first.tolist()):
        history = []
        for factor, summand in zip(a[:, i].tolist(), b[:, i].tolist(), strict=True):
            rate = factor * rate + summand
            history.append(rate)
        rates[:, i] = history
    return rates


def step_through(
    built: Sequence[Any], events: np.ndarray, first: np.ndarray, optimizer: Any
) -> np.ndarray:
    """The same by stepping the schedulers: slow, and right for any of them."""
    rates = np.empty((len(events), len(first)))
    for i, (_, order, tick) in enumerate(events.tolist()):
        scheduler = built[order]
        scheduler._global_step = tick - 1
        scheduler.last_step = tick - 1 - scheduler.begin
        scheduler.step()
        rates[i] = _rates(optimizer)
    return rates


def never_act(schedulers: Any, by_epoch: bool) -> list[str]:
    """Names of schedulers that count epochs in a loop that has none."""
    if by_epoch:
        return []
    counting = [s for s in _listed(schedulers) if s.get("by_epoch", True)]
    return [kind_of(s) for s in counting if not s.get("convert_to_iter_based")]


def kind_of(config: Mapping[str, Any]) -> str:
    """Return the bare class name of a config's ``type``, a class in new-style configs."""
    kind = config.get("type")
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition(".")[2]


def _listed(schedulers: Any) -> list[Mapping[str, Any]]:
    if schedulers is None:
        return []
    several = [schedulers] if isinstance(schedulers, Mapping) else list(schedulers)
    if not all(isinstance(s, Mapping) for s in several):
        raise ValueError("param_scheduler of several optimizers, or built already: no forecast")
    return several


def _build(
    config: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
    iterations: int,
    iterations_per_epoch: int | None,
    by_epoch: bool,
) -> Any:
    options = copy.deepcopy(dict(config))
    kind = kind_of(options)
    if "Plateau" in kind:
        raise ValueError(f"{kind} follows a metric that only training knows: no forecast")
    if options.get("convert_to_iter_based") and iterations_per_epoch is None:
        raise ValueError(f"{kind} is converted from epochs, whose length is not known")
    epochs = 1
    if by_epoch and iterations_per_epoch is not None:
        epochs = iterations // iterations_per_epoch
    options.setdefault("end", epochs if options.get("by_epoch", True) else iterations)
    defaults = {"optimizer": optimizer, "epoch_length": iterations_per_epoch}
    try:
        scheduler = PARAM_SCHEDULERS.build(options, default_args=defaults)
    except Exception as error:
        line = " ".join(str(error).split())
        raise ValueError(f"param_scheduler {kind} cannot be built: {line}") from error
    if scheduler.param_name != "lr":
        raise ValueError(f"{kind} schedules the {scheduler.param_name}: no forecast")
    return scheduler


def _rates(optimizer: torch.optim.Optimizer) -> np.ndarray:
    return np.array([group["lr"] for group in optimizer.param_groups])
