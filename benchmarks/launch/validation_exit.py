"""Leaving a validation before its end: whether that can be done, when, and what it takes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from mmengine.utils import is_method_overridden


def may_be_left(hooks: Iterable[Hook]) -> bool:
    """Whether no hook is known to have anything to undo at a validation's end but EMAHook.

    One that swaps weights in before, as EMAHook does, and back after would leave the wrong ones
    to a checkpoint that is saved in between.
    """
    return not any(
        _does(hook, "before_val", "before_val_epoch")
        and _does(hook, "after_val_epoch", "after_val")
        for hook in hooks
        if not isinstance(hook, EMAHook) and not type(hook).__module__.startswith("mmengine.")
    )


def end_validation(runner: Runner) -> None:
    """Undo what hooks did to the model for a validation that is left before its end."""
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            hook.after_val_epoch(runner)


def batches_of_all_ranks(loader: Any) -> int:
    """Return how many batches every process has of a loader: a collective.

    Processes must not wait for one that has none left. 0 where a loader does not say.
    """
    batches = torch.tensor(0)
    with suppress(TypeError):
        batches += len(loader)
    all_reduce(batches, "min")
    return int(batches)


def _does(hook: Hook, *methods: str) -> bool:
    return any(is_method_overridden(method, Hook, type(hook)) for method in methods)
