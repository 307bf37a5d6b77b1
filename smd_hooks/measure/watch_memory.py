"""What an :class:`InvarianceWatch` knows, as plain values for a checkpoint.

A resumed run that looked again from the beginning would come to its verdicts from other
batches, and would measure joint groups only some steps later.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .invariance import ScaleInvarianceObserver
from .invariance_watch import Findings, InvarianceWatch
from .joint_groups import Candidate, JointGroup
from .sharding import is_sharded
from .structure import Destination
from .verdict import Verdict


def memory_of(watch: InvarianceWatch) -> dict[str, Any]:
    """Return what a watch has found and seen so far, a running observation included.

    To be called between two steps, after :meth:`InvarianceWatch.poll`. Tensors are on the
    CPU. Of weights sharded over processes a running observation is left out: gathering it
    would need them all.
    """
    observer = watch._observer
    return {
        "findings": None if watch.findings is None else _findings_state(watch.findings),
        "signatures": [watch._signatures.get(o) for o in watch._optimizers],
        "differs_since": [watch._differs_since.get(o) for o in watch._optimizers],
        "mode_since": watch._mode_since,
        "length": watch._length,
        "next_look": watch._next_look,
        "from_steps": list(watch._from_steps),
        "observes": observer is not None,
        "observation": None if observer is None else _observation_state(observer),
    }


def remember(watch: InvarianceWatch, memory: dict[str, Any]) -> bool:
    """Let a new watch go on where the one that :func:`memory_of` was called with was.

    Args:
        watch: A watch that has seen no step yet, its steps those of the checkpoint.
        memory: What was returned.

    Returns:
        False if the model or its optimizers are not the same in number of modules and
        parameters, or if a running observation is missing: the watch then is as it was.
    """
    signatures = memory["signatures"]
    if len(signatures) != len(watch._optimizers) or (
        memory["observes"] and memory["observation"] is None
    ):
        return False
    for optimizer, signature in zip(watch._optimizers, signatures, strict=True):
        shape = [len(flags) for flags in watch._signature(optimizer)]
        if signature is not None and [len(flags) for flags in signature] != shape:
            return False
    for optimizer, signature, since in zip(
        watch._optimizers, signatures, memory["differs_since"], strict=True
    ):
        if signature is not None:
            watch._signatures[optimizer] = list(signature[0]), list(signature[1])
        if since is not None:
            watch._differs_since[optimizer] = tuple(since)
    if memory["findings"] is not None:
        watch._last = _findings_of(memory["findings"])
    watch._mode_since, watch._length = memory["mode_since"], memory["length"]
    watch._next_look, watch._from_steps = memory["next_look"], tuple(memory["from_steps"])
    assert watch._observer is not None  # a new watch observes
    if memory["observes"]:
        _take_up(watch._observer, memory["observation"])
    else:
        watch._observer.detach()
        watch._observer = None
    return True


def _findings_state(findings: Findings) -> dict[str, Any]:
    return {
        "from_steps": list(findings.from_steps),
        "verdicts": [asdict(verdict) for verdict in findings.verdicts],
        "groups": [asdict(group) for group in findings.groups],
    }


def _findings_of(state: dict[str, Any]) -> Findings:
    return Findings(
        tuple(state["from_steps"]),
        [Verdict(**verdict) for verdict in state["verdicts"]],
        [JointGroup(**group) for group in state["groups"]],
    )


def _observation_state(observer: ScaleInvarianceObserver) -> dict[str, Any] | None:
    pairs = [pair for steps in observer._rows.values() for pair in steps.values()]
    if any(is_sharded(tensor) for pair in pairs for tensor in pair):
        return None
    return {
        "steps": observer.steps,
        "steps_of": list(observer._steps_of.values()),
        "rows": {
            name: {step: [sums.cpu(), norms.cpu()] for step, (sums, norms) in steps.items()}
            for name, steps in observer._rows.items()
        },
        "destinations": {name: asdict(found) for name, found in observer._destinations.items()},
        "candidates": [asdict(candidate) for candidate in observer._candidates.values()],
    }


def _take_up(observer: ScaleInvarianceObserver, state: dict[str, Any]) -> None:
    devices = {name: p.device for own in observer._watched.values() for name, p in own.items()}
    observer.steps = state["steps"]
    observer._steps_of = dict(zip(observer._steps_of, state["steps_of"], strict=True))
    observer._rows = {
        name: {
            step: (sums.to(devices[name]), norms.to(devices[name]))
            for step, (sums, norms) in steps.items()
        }
        for name, steps in state["rows"].items()
        if name in devices
    }
    observer._destinations = {
        name: Destination(**found) for name, found in state["destinations"].items()
    }
    found = [Candidate(**candidate) for candidate in state["candidates"]]
    observer._candidates = {candidate.members: candidate for candidate in found}
