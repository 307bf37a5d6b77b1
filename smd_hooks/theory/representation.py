"""How far one normalized step moves a layer's outputs, given the gradient noise.

A step of fixed size along the batch gradient g_B moves the layer's response to the very
examples that g_B was made of. While noise rules, every example pulls its own way and
the outputs move little; once the examples agree, the same step moves them all. All of
it depends on the signal-to-noise ratio φ = ‖ḡ‖²/E‖gᵢ − ḡ‖² of single examples' gradients
gᵢ about their mean ḡ; the critical batch size is 1/φ.
"""

from __future__ import annotations

import math


def _check(snr: float, batch_size: float, fan_in: float) -> None:
    if not (math.isfinite(snr) and snr >= 0):
        raise ValueError(f"snr must be 0 or more and finite, got {snr}")
    if not batch_size >= 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
    if not fan_in >= 1:
        raise ValueError(f"fan_in must be 1 or more, got {fan_in}")


def predicted_representation_change(fan_in: float, batch_size: float, snr: float) -> float:
    """Relative representation change of one step, per unit of the step's relative size.

    One neuron w with inputs xᵢ of C elements, whose per-example gradients are xᵢ itself
    up to a common factor, takes the step Δw = −η‖w‖·g_B/‖g_B‖; mean and noise of the xᵢ
    point in unrelated directions, and so does w.

    Args:
        fan_in: C, inputs per output (kernel elements × input channels for a conv).
        batch_size: B, examples that the gradient is averaged over.
        snr: φ of single examples.

    Returns:
        RRC/η, with RRC = ‖XΔWᵀ‖/‖XWᵀ‖ over the batch and η = ‖Δw‖/‖w‖ (for a tangential
        step the tangent of the angular update).

    Raises:
        ValueError: ``fan_in`` or ``batch_size`` < 1, or ``snr`` negative or not finite.

    Source: derived for this project after the question of Kosson et al., *Analyzing &
    Reducing the Need for Learning Rate Warmup in GPT Training*, §6; not their formula.

    >>> round(predicted_representation_change(768, 480, 0.0), 4)
    1.6118
    """
    _check(snr, batch_size, fan_in)
    b = 1 / batch_size
    mean_gradient = snr + b  # E‖g_B‖² in units of the noise of one example
    # ⟨xᵢ, g_B⟩ = ‖ḡ‖² + ‖nᵢ‖²/B for certain, and the rest by chance, 1/C of its square
    others = (1 - b) * b  # (B − 1)/B², from the other examples' noise
    by_chance = snr * ((1 + b) ** 2 + others) + others
    return math.sqrt((fan_in * mean_gradient**2 + by_chance) / (mean_gradient * (1 + snr)))


def snr_step_factor(snr: float, batch_size: float, fan_in: float | None = None) -> float:
    """Factor s(φ) on a normalized step that keeps its representation change at φ → 0's.

    Args:
        snr: φ of single examples.
        batch_size: B, examples that the gradient is averaged over.
        fan_in: C; None for the limit of many inputs, s = √((1 + φ)/(1 + Bφ)).

    Returns:
        s between √(1/B) and 1.

    Raises:
        ValueError: As :func:`predicted_representation_change`.

    Source: as :func:`predicted_representation_change`; it stands where the paper has its
    correction of the learning rate for the signal-to-noise ratio (§6), but is not the
    same formula.

    >>> round(snr_step_factor(1 / 480, 480), 3)
    0.708
    """
    if fan_in is None:
        _check(snr, batch_size, 1)
        return math.sqrt((1 + snr) / (1 + batch_size * snr))
    return predicted_representation_change(
        fan_in, batch_size, 0.0
    ) / predicted_representation_change(fan_in, batch_size, snr)
