"""What a probe was asked for and never measures is said, not left out in silence."""

from __future__ import annotations

import warnings
from collections import Counter

PATIENCE = 3
"""Measured steps after which a layer that none of them could measure is named."""


class NeverMeasured:
    """Names, once each, what a probe was asked for and no measured step could measure.

    Args:
        who: The probe, for the message.
        why: What such layers lack, for the message: "have had no gradient".
    """

    def __init__(self, who: str, why: str) -> None:
        self._who, self._why = who, why
        self._missed: Counter[str] = Counter()
        self._settled: set[str] = set()

    def count(self, name: str, measured: bool) -> None:
        """Count a measured step of one parameter, and whether it was measured there."""
        if measured:
            self._settled.add(name)
        self._missed[name] += not measured

    def say(self) -> None:
        """Warn of those that at least :data:`PATIENCE` steps have missed, and none has not."""
        names = [n for n, m in self._missed.items() if m >= PATIENCE and n not in self._settled]
        if names:
            self._settled.update(names)
            warnings.warn(
                f"{self._who}: {', '.join(names)} {self._why} in the steps measured so far "
                "and so have no rows",
                stacklevel=3,
            )
