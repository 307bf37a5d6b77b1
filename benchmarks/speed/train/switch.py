"""Turns what measures on and off within one training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook
from torch.optim import Optimizer


class Switch:
    """Calls what measures while it is on, and nothing of it while it is off.

    Two processes that train alike may differ by some percent all their lives, by how their memory
    lies. What a hook costs is told within one.
    """

    def __init__(self) -> None:
        self.is_on = True

    def gate(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function; while the switch is off it does nothing."""

        def gated(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs) if self.is_on else None

        return gated

    def over_hook(self, hook: Hook) -> None:
        """Gate what MMEngine's Runner calls once per iteration."""
        gated: Any = hook
        gated.before_train_iter = self.gate(hook.before_train_iter)
        gated.after_train_iter = self.gate(hook.after_train_iter)

    def over_steps(self, optimizer: Optimizer) -> None:
        """Gate all step hooks that are registered from now on."""
        before, after = optimizer.register_step_pre_hook, optimizer.register_step_post_hook
        gated: Any = optimizer
        gated.register_step_pre_hook = lambda hook: before(self.gate(hook))
        gated.register_step_post_hook = lambda hook: after(self.gate(hook))
