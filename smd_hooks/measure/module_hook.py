"""Hooks on a module that stay behind when the module is copied or saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class ModuleHook:
    """A forward (pre-)hook that watches one module, and no copy of it.

    A bound method could not be pickled, so that ``torch.save(model)`` failed, and a deep
    copy of the model (an EMA, say) would report to whoever watches the original. In
    copies and files there is a function in its place that does nothing. It is kept out
    of ``torch.compile``'s graphs.

    Args:
        callback: What torch calls; its answer is torch's.
    """

    def __init__(self, callback: Callable[..., Any]) -> None:
        self._callback = torch.compiler.disable(callback)

    def __call__(self, *args: Any) -> Any:
        """Call back."""
        return self._callback(*args)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _nobody, ()


def watched_by_nobody(*args: Any) -> None:
    """Stand in for a hook in copies and files."""


def _nobody() -> Callable[..., None]:
    return watched_by_nobody
