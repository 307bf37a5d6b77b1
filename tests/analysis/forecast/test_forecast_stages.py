"""How schedules fall into stages."""

from __future__ import annotations

import numpy as np
import pytest

from smd_hooks.analysis.forecast.stages import split_stages


def kinds(values: np.ndarray) -> list[tuple[str, int, int]]:
    """Stages of a rate per step: kind, first and last step."""
    starts = np.flatnonzero(np.append(True, np.diff(values) != 0))
    bounds = np.append(starts, len(values))
    spans = split_stages(starts, len(values), values[starts])
    assert [s.first for s in spans] == [0, *(s.last + 1 for s in spans[:-1])]
    assert spans[-1].last == len(starts) - 1
    return [(s.kind, int(bounds[s.first]), int(bounds[s.last + 1]) - 1) for s in spans]


def cosine(steps: int, every: int = 1) -> np.ndarray:
    t = np.arange(steps) // every * every
    return 0.5 * (1 + np.cos(np.pi * t / steps))


def test_drops_are_stages_even_at_equal_distances() -> None:
    rates = np.repeat([1, 0.1, 0.01, 0.001, 1e-4], 100)
    assert kinds(rates) == [("constant", 100 * i, 100 * i + 99) for i in range(5)]


def test_warmup_and_drops() -> None:
    rates = np.concatenate([np.linspace(0.001, 1, 50), np.ones(450), np.full(500, 0.1)])
    found = kinds(rates)
    assert [kind for kind, _, _ in found] == ["rising", "constant", "constant"]
    assert found[1][1] in (49, 50)


@pytest.mark.parametrize("every", [1, 50])
def test_a_cosine_is_one_stage_to_its_end(every: int) -> None:
    """Also by epochs; its last epochs, where the rate falls by large factors, belong to it."""
    assert kinds(cosine(1000, every)) == [("falling", 0, 999)]


def test_warmup_plateau_cosine_and_tail() -> None:
    rates = np.concatenate(
        [np.linspace(1e-3, 1, 100), np.ones(400), 0.05 + 0.95 * cosine(900), np.full(600, 0.05)]
    )
    found = kinds(rates)
    assert [kind for kind, _, _ in found] == ["rising", "constant", "falling", "constant"]
    assert found[3][1] == pytest.approx(1400, abs=30)


def test_a_gentle_staircase_is_a_ramp() -> None:
    assert kinds(0.97 ** (np.arange(3000) // 100)) == [("falling", 0, 2999)]


def test_up_and_down_again() -> None:
    rates = np.concatenate([np.linspace(0.1, 1, 300), np.linspace(1, 0.01, 700)[1:]])
    assert [kind for kind, _, _ in kinds(rates)] == ["rising", "falling"]


def test_a_constant_rate_and_a_single_drop() -> None:
    assert kinds(np.ones(10)) == [("constant", 0, 9)]
    assert kinds(np.repeat([1.0, 0.5], 5)) == [("constant", 0, 4), ("constant", 5, 9)]
