"""What the observations of one weight amount to: statistics, limits and the verdict.

An unrelated gradient gives z² = ⟨w,g⟩²/Σ(wᵢgᵢ)² about 1, scale invariance leaves what
rounding left: five orders of magnitude between their means over batches (3e-6, 0.3).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .functional import ScaleResponse
from .parameters import is_matrix_shape
from .structure import Destination

Z2_LIMIT = 1e-2
"""Mean z² below which a weight counts as scale-invariant, if a norm was found behind it."""
Z2_ROUNDING = 1e-4
"""Mean z² that rounding alone can leave, bf16 included; below it no norm need be found."""

_ZERO = "unknown: its gradient was zero in every batch"
_EPS = (
    "its size matters, though a norm follows: the norm's eps is large beside it, or it "
    "normalizes other weights' outputs together with this one's"
)


@dataclass(frozen=True)
class Verdict:
    """What is known about one parameter.

    Attributes:
        parameter: Its name in the model.
        shape: Its shape.
        scale_invariant: True, False, or None where the gradient was zero throughout.
        statistic: Mean z² over ``batches``; None if there was no gradient.
        batches: Batches with a non-zero gradient.
        reason: In words, and for a weight left out the thing that stands in the way.
        norms: Names of the norm modules that normalize it.
        per_filter: Whether each row (filter, neuron) is scale-invariant by itself; None
            where unknown, or where there is one row only.
        filter_statistic: The largest mean z² among the rows; None as above.
        functional_change: Relative change of the output when the weight is doubled or
            halved; None where gradient and graph agree and nobody asked.
    """

    parameter: str
    shape: tuple[int, ...]
    scale_invariant: bool | None
    statistic: float | None
    batches: int
    reason: str
    norms: tuple[str, ...] = ()
    per_filter: bool | None = None
    filter_statistic: float | None = None
    functional_change: float | None = None

    @property
    def is_matrix(self) -> bool:
        """Whether it is no gain or bias, and so could be scale-invariant."""
        return is_matrix_shape(self.shape)

    @property
    def settled(self) -> bool:
        """False where later steps may say otherwise: no gradient yet, or a weight that
        is still small against its norm's eps.
        """
        return self.scale_invariant is not None and not self.reason.startswith(_EPS)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


def tensor_statistic(products: Tensor) -> tuple[float | None, int]:
    """Mean over batches of z² = (Σwg)²/Σ(wg)² of the whole tensor.

    Args:
        products: Σwg and √Σ(wg)² of each row, shape (2, batches, rows).

    Returns:
        The mean over batches where z² is defined (None if there are none), and their
        number.
    """
    z2 = products[0].sum(1) ** 2 / (products[1] ** 2).sum(1)
    z2 = z2[torch.isfinite(z2)]
    return (float(z2.mean()) if len(z2) else None), len(z2)


def largest_row_statistic(products: Tensor) -> float | None:
    """Return the largest among the rows' mean z²; rows without a gradient do not count.

    Args:
        products: As for :func:`tensor_statistic`.
    """
    z2 = (products[0] / products[1]) ** 2
    means = torch.where(torch.isfinite(z2), z2, torch.nan).nanmean(0)
    means = means[torch.isfinite(means)]
    return float(means.max()) if len(means) else None


def is_tie(statistic: float | None, destination: Destination | None) -> bool:
    """Whether gradient and graph disagree, or neither is sure.

    Args:
        statistic: Mean z² over batches; None if there was no gradient.
        destination: What the weight's output meets; None where it was not seen.
    """
    if statistic is None or (destination is not None and destination.certain):
        return False
    if Z2_ROUNDING <= statistic < Z2_LIMIT:
        return True
    if destination is None or destination.normalized is None:
        return False
    return destination.normalized is not (statistic < Z2_LIMIT)


def judge(
    statistic: float | None,
    destination: Destination | None,
    response: ScaleResponse | str | None = None,
) -> tuple[bool | None, str]:
    """Decide: by the graph where it is certain, then the function, then the gradient.

    Args:
        statistic: Mean z² over batches; None if there was no gradient.
        destination: What the weight's output meets; None where it was not seen.
        response: The functional test of a tie; a string says why there is none.

    Returns:
        Whether the weight is scale-invariant (None: unknown), and why.
    """
    if statistic is None:
        return None, _ZERO
    if destination is not None and destination.certain:
        return False, destination.reason
    no_norm = destination is not None and destination.normalized is False
    invariant = statistic < (Z2_ROUNDING if no_norm else Z2_LIMIT)
    asked = ""
    if isinstance(response, str):
        asked = f" ({response})"
    elif response is not None and response.invariant is not None:
        invariant = response.invariant
    elif response is not None and no_norm:
        invariant = False  # where the output hardly depends on a weight, its gradient says little
    if destination is not None and destination.normalized is None:
        found = "is tangential" if invariant else "has a radial part"
        reason = f"its gradient {found}; the weight {destination.reason}"
    elif invariant:
        if destination is None or no_norm:
            reason = "its gradient is tangential, though no norm was found behind it"
        else:
            reason = destination.reason
    elif destination is None:
        reason = "its gradient has a radial part"
    else:
        reason = destination.reason if no_norm else _EPS
    return invariant, reason + asked
