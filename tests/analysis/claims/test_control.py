from __future__ import annotations

import numpy as np
import pandas as pd

from smd_hooks.analysis import predict
from smd_hooks.analysis.claims.control import as_if_invariant, not_invariant
from tests.analysis.work_dirs import perfect_samples, weight


def test_what_is_chosen_is_predicted_and_nothing_else() -> None:
    samples = pd.DataFrame(perfect_samples(np.arange(60), np.full(60, 0.1), weights=3))
    conv, late, fc = weight("conv"), weight("late"), weight("fc.weight", invariant=False)
    for entry, changes in (
        (conv, [[0, True]]),
        (late, [[0, True], [30, False]]),
        (fc, [[0, False]]),
    ):
        entry["changes"] = changes
    weights = pd.DataFrame([conv, late, fc])
    assert set(predict(samples, weights)["parameter"]) == {"conv", "late"}
    # the history of the verdict must pretend, too: predict reads nothing else
    pretended = predict(samples, as_if_invariant(weights, [False, False, True]))
    assert set(pretended["parameter"]) == {"fc.weight"}
    assert len(pretended) == 60
    without = weights.drop(columns="changes")
    pretended = predict(samples, as_if_invariant(without, [False, True, False]))
    assert set(pretended["parameter"]) == {"late"}


def test_what_is_not_invariant_was_measured_and_called_so() -> None:
    entries = [
        weight("conv"),
        weight("fc.weight", invariant=False),
        weight("unknown", invariant=None),
        weight("fc.bias", invariant=False, measured=False),
    ]
    assert not_invariant(pd.DataFrame(entries)) == [False, True, False, False]
