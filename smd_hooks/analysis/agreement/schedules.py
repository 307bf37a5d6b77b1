"""Numbers of an update rule along a schedule of learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...theory import UpdateRule


class Targets:
    """Evaluates rules along schedules; what layers share is evaluated once."""

    def __init__(self) -> None:
        self._known: dict[Any, np.ndarray] = {}

    def along(
        self,
        rule: UpdateRule,
        lr: np.ndarray,
        weight_decay: np.ndarray,
        target: Callable[[UpdateRule], Any],
    ) -> np.ndarray:
        """Return ``target`` of the rule at each sample's lr and weight decay.

        Args:
            rule: The update rule; its lr and weight decay are not used.
            lr: η, shape (samples,).
            weight_decay: λ, shape (samples,).
            target: A number, or several, of a rule.
        """
        key = (target, rule.constants, lr.tobytes(), weight_decay.tobytes())
        if key not in self._known:
            pairs = list(zip(lr.tolist(), weight_decay.tolist(), strict=True))
            values = {pair: target(rule.at(*pair)) for pair in set(pairs)}
            self._known[key] = np.array([values[pair] for pair in pairs])
        return self._known[key]
