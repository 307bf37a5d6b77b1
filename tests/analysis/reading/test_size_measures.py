from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smd_hooks import load_runs
from smd_hooks.analysis.reading.size_measures import COLUMNS, NOISE_WINDOW, size_measures
from smd_hooks.records import RecordWriter
from tests.analysis.work_dirs import launch, perfect_samples, weight

WEIGHTS = pd.DataFrame([weight("b"), weight("a"), weight("b + a", members=["b", "a"])])


def samples(steps: list[int], weights: int) -> pd.DataFrame:
    frame = pd.DataFrame(perfect_samples(steps, np.full(len(steps), 0.1), weights=weights))
    frame["update_norm"] = frame["step"] + 100.0 * frame["weight"]
    return frame


def layers(parameter: str, quantity: str, values: dict[int, float]) -> pd.DataFrame:
    rows = {"step": list(values), "value": list(values.values())}
    return pd.DataFrame({**rows, "parameter": parameter, "quantity": quantity})


def ratio_by_hand(signal: list[float], noise: list[float], at: int) -> float:
    """Over ten samples around, of which one more lies before than after."""
    window = range(max(0, at - NOISE_WINDOW // 2), min(len(signal), at + NOISE_WINDOW // 2))
    return sum(signal[i] for i in window) / sum(noise[i] for i in window)


def test_measures_of_different_intervals_stand_side_by_side() -> None:
    several = pd.concat(
        [
            layers("a", "representation_change", {0: 0.5, 4: 0.25}),
            layers("a", "signal", {2: 1.0}),
            layers("a", "noise", {2: 8.0}),
            layers("a", "gradient_momentum_alignment", {2: -0.5}),
        ]
    )
    found = size_measures(samples([0, 2], weights=2), WEIGHTS, several)
    assert dict(found.dtypes.astype(str)) == COLUMNS
    # the model's order, not the alphabet's
    assert list(zip(found["parameter"], found["step"], strict=True)) == [
        *(("b", 0), ("b", 2)),
        *(("a", 0), ("a", 2), ("a", 4)),
    ]
    assert found["update_norm"].tolist()[:-1] == [0, 2, 100, 102]
    nan = pytest.approx(np.nan, nan_ok=True)
    assert found["update_norm"].iloc[-1] == nan
    by = found.set_index(["parameter", "step"])
    assert by.loc[("a", 0), "relative_representation_change"] == 0.5
    assert by.loc[("a", 2), "relative_representation_change"] == nan
    assert by.loc[("a", 2), ["signal_to_noise", "critical_batch_size"]].tolist() == [0.125, 8.0]
    assert by.loc[("a", 2), "gradient_momentum_alignment"] == -0.5
    assert by.loc["b"].drop(columns=["update_norm", "angular_update"]).isna().all(axis=None)


def test_filters_and_joint_groups_are_no_layers() -> None:
    found = size_measures(samples([0, 1], weights=3), WEIGHTS, pd.DataFrame())
    assert set(found["parameter"]) == {"a", "b"}
    rows = samples([0, 1], weights=1)
    filters = pd.concat([rows, rows.assign(unit=0, update_norm=7.0)])
    assert size_measures(filters, WEIGHTS, pd.DataFrame())["update_norm"].tolist() == [0, 1]


def test_ratios_are_of_means_over_ten_samples_around() -> None:
    rng = np.random.default_rng(0)
    signal = (np.geomspace(100, 1, 30) + rng.normal(size=30)).tolist()
    noise = (10 + rng.normal(size=30)).tolist()
    steps = [7 * i for i in range(30)]
    told = {"signal": signal, "noise": noise}
    parts = [layers("a", name, dict(zip(steps, x, strict=True))) for name, x in told.items()]
    found = size_measures(pd.DataFrame(), WEIGHTS, pd.concat(parts[::-1]).sample(frac=1))
    assert found["step"].tolist() == steps
    wanted = [ratio_by_hand(signal, noise, i) for i in range(30)]
    assert found["signal_to_noise"].to_numpy() == pytest.approx(wanted)
    assert found["critical_batch_size"].to_numpy() == pytest.approx([1 / x for x in wanted])
    # control: what the mean of all before would say of the end
    assert sum(signal) / sum(noise) > 2 * wanted[-1]


def test_what_is_too_noisy_to_tell_has_no_ratio() -> None:
    parts = [layers("a", "signal", {0: -1.0}), layers("a", "noise", {0: 2.0})]
    found = size_measures(pd.DataFrame(), WEIGHTS, pd.concat(parts))
    assert found[["signal_to_noise", "critical_batch_size"]].isna().all(axis=None)
    assert len(found) == 1


def test_of_each_layer_its_own_noise() -> None:
    parts = [
        layers(name, quantity, {0: size, 1: size})
        for name, scale in (("b", 1.0), ("a", 5.0))
        for quantity, size in (("signal", scale), ("noise", 2.0))
    ]
    found = size_measures(pd.DataFrame(), WEIGHTS, pd.concat(parts))
    assert found["signal_to_noise"].tolist() == [0.5, 0.5, 2.5, 2.5]


def test_records_without_these_probes_and_runs_without_records(tmp_path: Path) -> None:
    launch(tmp_path / "old", "20260101_000000", [{"lr": 0.1, "step": 5}])
    run = {"first_step": 0, "weights": [weight("a")]}
    measured = perfect_samples([0, 1], np.full(2, 0.1))
    folder = launch(tmp_path / "plain", "20260101_000000", [], measured, run)
    old, plain = load_runs(tmp_path)
    for frame in (old.size_measures, plain.size_measures):
        assert dict(frame.dtypes.astype(str)) == COLUMNS
    assert len(old.size_measures) == 0
    assert plain.size_measures["angular_update"].notna().all()
    assert (
        plain.size_measures.drop(columns=["step", "parameter", "update_norm", "angular_update"])
        .isna()
        .all(axis=None)
    )
    # from before alignment was measured
    writer = RecordWriter(folder)
    rows = layers("a", "signal", {0: 1.0, 1: 1.0})
    writer.append({name: rows[name].to_numpy() for name in rows}, "layers")
    writer.flush()
    (again,) = load_runs(tmp_path / "plain")
    assert set(again.layers["quantity"]) == {"signal"}
    assert again.size_measures["gradient_momentum_alignment"].isna().all()
