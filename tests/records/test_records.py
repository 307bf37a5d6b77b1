"""Records round trip, survive a kill, and name what is broken."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_hooks.records import RecordWriter, RunState, read_launch, read_state, write_state
from smd_hooks.records.schema import SAMPLES


def columns(first: int, steps: int, weights: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(first)
    n = steps * weights
    result = {name: rng.random(n) for name in SAMPLES.names}
    result["step"] = np.repeat(np.arange(first, first + steps), weights)
    result["iteration"] = result["step"] * 2
    result["weight"] = np.tile(np.arange(weights), steps).astype(np.int16)
    result["unit"] = np.full(n, -1)
    return result


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5), max_size=4), st.booleans())
def test_what_is_written_is_read_in_order(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], one_part: bool
) -> None:
    folder = tmp_path_factory.mktemp("launch")
    writer = RecordWriter(folder, seconds_between_parts=1e9 if one_part else 0)
    writer.write_run({"seed": 3})
    first, written = 0, []
    for length in lengths:
        written.append(columns(first, length))
        writer.append(written[-1])
        first += length
    writer.flush()
    launch = read_launch(folder)
    assert launch.run["seed"] == 3
    assert len(list((folder / "smd").glob("*.parquet"))) == (
        min(1, len(lengths)) if one_part else len(lengths)
    )
    for name in SAMPLES.names:
        wanted = np.concatenate([part[name] for part in written]) if written else []
        assert launch.samples[name].to_numpy() == pytest.approx(np.asarray(wanted), rel=1e-6)


def test_a_killed_run_leaves_every_part_but_the_pending_one(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, seconds_between_parts=1e9)
    writer.write_run({})
    writer.append(columns(0, 3))
    writer.flush()
    writer.append(columns(3, 3))  # and here the process dies
    (tmp_path / "smd" / ".samples-0000000003.parquet").write_bytes(b"half a file")
    assert read_launch(tmp_path).samples["step"].max() == 2


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b"{}"])
def test_a_broken_part_is_named_and_the_rest_is_read(tmp_path: Path, content: bytes) -> None:
    writer = RecordWriter(tmp_path, seconds_between_parts=0)
    writer.write_run({})
    writer.append(columns(0, 2))
    writer.append(columns(2, 2))
    (tmp_path / "smd" / "samples-0000000000.parquet").write_bytes(content)
    with pytest.warns(UserWarning, match="samples-0000000000.parquet: left out"):
        samples = read_launch(tmp_path).samples
    assert sorted(set(samples["step"])) == [2, 3]


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_broken_description_is_named(tmp_path: Path, content: str) -> None:
    RecordWriter(tmp_path).write_run({})
    (tmp_path / "smd" / "run.json").write_text(content)
    with pytest.warns(UserWarning, match=r"run.json: left out"):
        assert read_launch(tmp_path).run == {}


def test_a_folder_without_records_is_an_empty_launch(tmp_path: Path) -> None:
    launch = read_launch(tmp_path)
    assert launch.run == {}
    assert len(launch.samples) == 0
    assert list(launch.samples.columns) == SAMPLES.names


def test_records_from_before_angle_factors_have_factors_of_1(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, seconds_between_parts=0)
    writer.write_run({})
    writer.append(columns(0, 2))
    part = tmp_path / "smd" / "samples-0000000000.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["angle_factor"]), part)
    writer.append(columns(2, 2))
    factors = read_launch(tmp_path).samples["angle_factor"]
    assert (factors[:4] == 1).all()
    assert (factors[4:] == columns(2, 2)["angle_factor"]).all()


def test_compact_enough_for_every_step_of_a_long_run(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path)
    samples = columns(0, 2_000, weights=50)
    for constant in ("lr", "weight_decay", "rescale", "angle_factor"):
        samples[constant][:] = 0.1
    writer.append(samples)
    writer.flush()
    part = next((tmp_path / "smd").glob("*.parquet"))
    assert part.stat().st_size / 100_000 <= 40


def test_state_round_trip_and_dying(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    write_state(tmp_path, RunState("running", 5, 10))
    state = read_state(tmp_path)
    assert state is not None
    assert (state.status, state.iteration, state.is_dead) == ("running", 5, False)
    path = tmp_path / "smd" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "updated": 1.0}))
    old = read_state(tmp_path)
    assert old is not None
    assert old.is_dead is True
    path.write_text("{")
    with pytest.warns(UserWarning, match=r"state\.json: left out, not readable as JSON"):
        assert read_state(tmp_path) is None


def test_a_disk_that_is_away_for_a_while_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RecordWriter(tmp_path, seconds_between_parts=0)
    writer.write_run({"seed": 1})
    monkeypatch.setattr(Path, "replace", _away)
    with pytest.warns(UserWarning, match="not written, kept for later .*No space left"):
        writer.append(columns(0, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        writer.append(columns(2, 2))
        writer.write_run({"seed": 2})
    monkeypatch.undo()
    writer.append(columns(4, 2))
    launch = read_launch(tmp_path)
    assert launch.run["seed"] == 2
    assert sorted(set(launch.samples["step"])) == list(range(6))


def _away(*_: object) -> None:
    raise OSError(28, "No space left on device")
