from __future__ import annotations

import pytest
import torch

from benchmarks.speed.forms import COMPILED, FOREACH, LOOP, REFERENCE, report, time_forms
from benchmarks.speed.parameter_sets import SETS

CPU = torch.device("cpu")
OWN = "the library's, in C"


def test_all_forms_give_the_sums_and_the_librarys_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETS, "tiny", lambda: {"a": (64, 32, 3, 3), "bias": (64,), "b": (10, 64)})
    times = time_forms("tiny", CPU, rounds=2)
    assert [*times.seconds] == [OWN, COMPILED, FOREACH, LOOP, REFERENCE]
    assert all(len(figures) == 2 and min(figures) > 0 for figures in times.seconds.values())
    assert times.error[REFERENCE] == 0
    assert max(times.error[OWN], times.error[COMPILED]) < 1e-13
    # float32, so that small angles would be lost
    assert 1e-9 < times.error[LOOP] < 1e-4
    assert 1e-9 < times.error[FOREACH] < 1e-4
    lines = report([times], CPU)
    assert len([line for line in lines if line.startswith("| tiny |")]) == 5
    own = next(line for line in lines if OWN in line)
    assert own.split("|")[4].strip() == ""
