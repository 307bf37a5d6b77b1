"""The scores on arrays are the readable ones, sample by sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_hooks.analysis import predict, score
from smd_hooks.analysis.agreement import blocks
from smd_hooks.analysis.agreement.windows import invariant_spans, window_mean, window_sums
from smd_hooks.theory import AdamRule, LionRule, SGDRule, UpdateRule
from tests.analysis.agreement import reference_agreement as reference
from tests.analysis.work_dirs import TURNED, weight

RULES: list[UpdateRule] = [
    SGDRule(0.1, 0.005, 0.9),
    SGDRule(0.1, 0.002, 0.9, nesterov=True),
    AdamRule(0.01, 0.1),
    AdamRule(0.01, 0.1, decoupled=False),
    LionRule(0.01, 0.1),
    TURNED,
]
HISTORIES: list[Any] = [
    None,
    [[0, True]],
    [[0, True], [60, False], [90, True]],
    [[0, False], [50, True], [120, True]],
    [[0, True], [101, False], [103, True], [150, False]],
]


def assert_same(samples: pd.DataFrame, weights: pd.DataFrame) -> None:
    fast, slow = predict(samples, weights), reference.predict(samples, weights)
    assert list(fast) == list(slow) or not len(slow)
    # an error is a logarithm near 0: there the ninth digit of what it is of counts
    pd.testing.assert_frame_equal(fast, slow, rtol=1e-9, atol=1e-10)
    pd.testing.assert_frame_equal(
        score(fast, weights), reference.score(slow, weights), rtol=1e-9, atol=1e-10
    )


def measured(
    rng: np.random.Generator, steps: np.ndarray, rates: np.ndarray, decay: np.ndarray
) -> dict[str, np.ndarray]:
    """One weight's samples, of any numbers: the scores make no sense, and are the same."""
    n = len(steps)
    return {
        "step": steps,
        "unit": np.full(n, -1),
        "lr": rates,
        "weight_decay": decay,
        "rescale": np.where(steps < 100, 1.0, rng.choice([1.0, 0.6])),
        "angle_factor": np.full(n, rng.choice([1.0, 0.9])),
        "weight_norm": rng.lognormal(0, 0.1, n).astype(np.float32),
        "gradient_norm": rng.lognormal(0, 0.3, n).astype(np.float32),
        "gradient_momentum_dot": np.where(steps == 0, 0, rng.normal(0, 0.05, n)),
        "radial_cosine": rng.normal(0, 1e-3, n),
        "update_norm": rng.lognormal(-3, 0.1, n),
        "radial_update": rng.normal(-1e-3, 1e-4, n),
        "angular_update": rng.lognormal(-3, 0.1, n).astype(np.float32),
    }


@st.composite
def recorded(draw: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Some weights of some rules and schedules, with gaps, holes and filters."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    first, interval = draw(st.sampled_from([(0, 1), (7, 1), (0, 3)]))
    steps = first + interval * np.arange(draw(st.integers(1, 180)))
    frames, entries = [], []
    for i in range(draw(st.integers(1, 5))):
        rule = draw(st.sampled_from(RULES))
        done = np.linspace(0, 1, len(steps))
        rates = draw(
            st.sampled_from(
                [
                    np.where(done < 0.5, rule.lr, rule.lr / 10),
                    rule.lr / 2 * (1 + np.cos(np.pi * done)),
                    np.where(done < 0.9, rule.lr, 0.0),
                ]
            )
        )
        decay = np.where(done < draw(st.sampled_from([0.3, 2.0])), rule.weight_decay, 0.0)
        frame = pd.DataFrame(measured(rng, steps, rates, decay)).assign(weight=i)
        if draw(st.booleans()):  # a weight that its optimizer skipped at times
            frame = frame[rng.random(len(frame)) < 0.7]
        holes = rng.random(len(frame)) < draw(st.sampled_from([0.0, 0.1]))
        column = draw(st.sampled_from(["gradient_norm", "angular_update", "update_norm"]))
        frame.loc[holes, column] = draw(st.sampled_from([np.nan, 0.0]))
        frames.append(frame)
        if draw(st.booleans()):
            frames.append(frame.assign(unit=2))  # a filter
        changes = draw(st.sampled_from(HISTORIES))
        entry = weight(f"w{i}", rule=rule.to_json(), changes=changes)
        entry["scale_invariant"] = draw(st.sampled_from([True, True, False]))
        entry["optimizer"] = draw(st.sampled_from(["a", "b"]))
        if draw(st.booleans()):
            entry |= {"members": ["x", "y"]}
        entries.append(entry)
    samples = pd.concat(frames, ignore_index=True)
    shuffled = samples.sample(frac=1, random_state=int(rng.integers(1000)))
    return draw(st.sampled_from([samples, shuffled])), pd.DataFrame(entries)


@settings(deadline=None, max_examples=60)
@given(recorded())
def test_the_fast_scores_are_the_readable_ones(run: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    with np.errstate(all="ignore"):
        assert_same(*run)


def test_layers_are_calculated_alike_in_smaller_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, steps = np.random.default_rng(0), np.arange(200)
    rates, decay = np.where(steps < 120, 0.1, 0.01), np.full(200, 0.005)
    frames = [pd.DataFrame(measured(rng, steps, rates, decay)).assign(weight=i) for i in range(5)]
    samples, table = pd.concat(frames), pd.DataFrame([weight(name) for name in "abcde"])
    shapes: list[tuple[int, ...]] = []

    def predicted() -> pd.DataFrame:
        shapes.clear()
        return predict(samples, table)

    block = blocks._block
    monkeypatch.setattr(
        blocks, "_block", lambda *parts: shapes.append((b := block(*parts)).rows.shape) or b
    )
    at_once = predicted()
    assert shapes == [(5, 200)]
    monkeypatch.setattr(blocks, "MOST_SAMPLES", 400)
    pd.testing.assert_frame_equal(predicted(), at_once, rtol=1e-12)
    assert shapes == [(2, 200), (2, 200), (1, 200)]
    monkeypatch.setattr(blocks, "MOST_SAMPLES", 100)  # less than one layer has
    pd.testing.assert_frame_equal(predicted(), at_once, rtol=1e-12)
    assert shapes == [(1, 200)] * 5


def test_control_a_window_that_is_one_sample_off_is_found() -> None:
    rng, steps = np.random.default_rng(0), np.arange(200)
    frame = pd.DataFrame(measured(rng, steps, np.full(200, 0.1), np.full(200, 0.005)))
    table = pd.DataFrame([weight("a")])
    fast = predict(frame.assign(weight=0), table)
    for off in (1, -1):
        squares = fast["angular_update"].astype(float) ** 2
        moved = squares.shift(off).rolling(25, min_periods=1, center=True).mean() ** 0.5
        inside = slice(30, 170)
        assert not np.allclose(fast["measured_angle"][inside], moved[inside], rtol=1e-4)


def test_what_falls_by_orders_of_magnitude_does_not_cancel() -> None:
    values = 10.0 ** np.linspace(8, -8, 400)
    exact = pd.Series(values).rolling(25, min_periods=1, center=True).sum().to_numpy()
    by_hand = np.array([values[max(i - 12, 0) : i + 13].sum() for i in range(400)])
    assert np.allclose(window_sums(values, 25)[0], by_hand, rtol=1e-14, atol=0)
    # control: a difference of running sums
    sums = np.r_[0, np.cumsum(values)]
    differences = sums[25:] - sums[:-25]
    assert not np.allclose(differences, by_hand[12:-12], rtol=1e-3, atol=0)
    assert np.allclose(exact, by_hand, rtol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 24, 25, 100])
@pytest.mark.parametrize("samples", [1, 2, 25, 99, 130])
def test_windows_are_those_of_pandas(length: int, samples: int) -> None:
    rng = np.random.default_rng(samples)
    values = rng.normal(size=(2, samples))
    values[0, rng.random(samples) < 0.3] = np.nan
    values[1, 0] = np.inf
    for row, mean in zip(values, window_mean(values, length), strict=True):
        rolling = pd.Series(row).rolling(length, min_periods=1, center=True).mean()
        assert np.allclose(mean, rolling, equal_nan=True, atol=1e-12)


@given(
    st.lists(st.integers(0, 40), max_size=30, unique=True),
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([True, False, None])), max_size=6),
)
def test_spans_are_those_that_grouping_finds(steps: list[int], changes: list[Any]) -> None:
    steps = sorted(steps)
    frame = pd.DataFrame({"step": np.array(steps, int)})
    history = [list(change) for change in changes]
    slow = [span["step"].tolist() for span in reference.invariant_spans(frame, history)]
    fast = [steps[span] for span in invariant_spans(np.array(steps, int), history)]
    assert fast == slow
