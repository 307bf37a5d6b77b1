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


def not_invariant(weights: pd.DataFrame) -> list[bool]:
    """Return which weights were measured and found not to be scale-invariant.

    In a classifier net with norms that is its last layer, in a detector also what its heads
    end in.
    """
    return [
        entry.get("measured") is True and entry.get("scale_invariant") is False
        for entry in weights.to_dict("records")
    ]
