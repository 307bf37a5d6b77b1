from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.speed.generated_runs import KINDS, samples_of, settled_rule
from benchmarks.speed.records import Cost, report, sums_of
from smd_hooks.measure.geometry import STEP_SUMS, statistics
from smd_hooks.measure.momentum import Momentum


def test_sums_are_those_that_the_samples_were_made_of() -> None:
    steps = np.arange(200)
    rule = settled_rule(KINDS[0], steps)
    columns = samples_of(rule, False, 3, steps, np.random.default_rng(0))
    sums = sums_of(columns, np.random.default_rng(1)).numpy()
    measured = statistics(sums)
    for name in ("weight_norm", "gradient_norm", "update_norm", "radial_update", "radial_cosine"):
        np.testing.assert_allclose(measured[name], columns[name], rtol=1e-9)
    np.testing.assert_allclose(measured["angular_update"], columns["angular_update"], rtol=1e-6)
    # undone, ⟨v, g⟩ is noise of a hundredth of ‖g‖²
    undo = Momentum("momentum_buffer", 0.9, 1.0, rule.weight_decay).undo()
    before = sums[:, [STEP_SUMS.index(name) for name in ("bg", "gg", "wg")]] @ undo
    assert np.std(before / columns["gradient_norm"] ** 2) == pytest.approx(0.01, rel=0.1)


def test_a_small_run_is_written_and_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "records.json"
    options = ["--steps", "3000", "--layers", "5", "--step-seconds", "0.1", "--json", str(file)]
    assert main(["speed", "records", *options]) == 0
    told = capsys.readouterr().out
    assert "3,000 steps of 5 layers at interval 1, in 10 parts" in told
    figures = json.loads(file.read_text())
    assert figures["files"] == 10
    assert figures["scored"] == pytest.approx(1.0, abs=0.1)
    # seven numbers of 4 bytes each hardly compress, the others to nothing
    assert 15 < figures["size"] / (3000 * 5) < 60
    assert f"| {figures['writing'] / 3000 * 1e3:.3f} |" in told


@pytest.mark.parametrize(
    ("size", "writing", "table", "fails"),
    [(30, 0.1, 5.0, 0), (41, 0.1, 5.0, 1), (30, 0.3, 5.0, 1), (41, 0.3, 11.0, 3)],
)
def test_limits_are_held(size: int, writing: float, table: float, fails: int) -> None:
    cost = Cost(10, size * 54_000, writing, table, 0.1, 1.0)
    lines = report([], cost, steps=1000, layers=54, step_seconds=0.1)
    assert sum("FAILS" in line for line in lines) == fails
    assert sum("holds" in line for line in lines) == 3 - fails


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--steps", "10"], "--steps 10: give 1000 or more"),
        (["--layers", "0"], "--layers 0: give 1 or more"),
        (["--step-seconds", "0"], "--step-seconds 0: give up to 30"),
    ],
)
def test_what_cannot_be_measured(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["speed", "records", *options]) == 2
    assert says in capsys.readouterr().err
