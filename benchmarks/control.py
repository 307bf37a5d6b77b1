"""The control of every score: what is not scale-invariant, scored as if it were, must fail."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def as_if_invariant(weights: pd.DataFrame, chosen: Sequence[bool]) -> pd.DataFrame:
    """Return the weights with the chosen ones, and no others, called scale-invariant.

    Args:
        weights: One row per weight, as ``run.json`` has them.
        chosen: Which ones, of the same length.
    """
    pretended = weights.assign(scale_invariant=list(map(bool, chosen)))
    if "changes" in weights:  # the verdict's history must pretend, too
        pretended["changes"] = [[[0, invariant]] for invariant in pretended["scale_invariant"]]
    return pretended
