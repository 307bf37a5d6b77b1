"""Gradient signal, gradient noise and the batch size at which they are equal.

φ = ‖ḡ‖²/E‖gᵢ − ḡ‖² of single examples' gradients gᵢ about their mean ḡ; the critical batch
size is 1/φ. Source: Kosson et al., *Analyzing & Reducing the Need for Learning Rate
Warmup in GPT Training*, §6, for the use of φ; the estimator is the unbiased one that
follows from E‖g_B‖² = ‖ḡ‖² + E‖gᵢ − ḡ‖²/B at two values of B.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

WINDOW = 50
"""Measured steps that a ratio is taken over."""


def two_batch_estimate(small_square: Any, large_square: Any, small: Any, large: Any) -> Any:
    """Unbiased estimate of a gradient's signal and noise from two batch sizes.

    A single estimate may be negative. Average signals and noises over steps, each for
    itself, before dividing: a mean of ratios is biased.

    Args:
        small_square: ‖g_b‖² of a batch of ``small`` examples (or a mean of several such),
            a float, array or tensor, as all arguments.
        large_square: ‖g_B‖² of a batch of ``large`` examples.
        small: b.
        large: B > b.

    Returns:
        ``(signal, noise)``: estimates of ‖ḡ‖² and of E‖gᵢ − ḡ‖² of single examples.

    >>> two_batch_estimate(1 + 8 / 2, 1 + 8 / 4, 2, 4)
    (1.0, 8.0)
    """
    signal = (large * large_square - small * small_square) / (large - small)
    noise = (small_square - large_square) / (1 / small - 1 / large)
    return signal, noise


class NoiseAverage:
    """Mean signal over mean noise of the last estimates.

    Args:
        window: Estimates that are remembered.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._estimates: deque[tuple[float, float]] = deque(maxlen=window)

    def add(self, signal: float, noise: float) -> None:
        """Take in one estimate of ‖ḡ‖² and E‖gᵢ − ḡ‖²."""
        self._estimates.append((signal, noise))

    @property
    def estimates(self) -> list[tuple[float, float]]:
        """What is remembered, oldest first, as :meth:`add` took it."""
        return list(self._estimates)

    @property
    def signal_to_noise(self) -> float:
        """φ; NaN while either mean is not positive: there is too little to tell."""
        signal = math.fsum(signal for signal, _ in self._estimates)
        noise = math.fsum(noise for _, noise in self._estimates)
        return signal / noise if signal > 0 and noise > 0 else math.nan

    @property
    def critical_batch_size(self) -> float:
        """1/φ in examples, or NaN."""
        return 1 / self.signal_to_noise
