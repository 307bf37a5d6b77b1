"""The table's timing, on few and small runs, and the runs that it generates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.__main__ import main
from benchmarks.speed import table
from benchmarks.speed.generated_runs import KINDS, generate_runs, sample_files
from benchmarks.speed.table import Cost, report
from smd_hooks.analysis import load_runs

SMALL = ["--layers", "3", "--samples", "400"]


def cost(seconds: float, memory: float) -> Cost:
    return Cost(100.0, 4_000, 1_600.0, 5.0, seconds, 2 * seconds, memory, 1_000, 1_000, {})


def test_generated_runs_agree_with_theory(tmp_path: Path) -> None:
    generate_runs(tmp_path, len(KINDS), layers=4, samples=1_000, interval=1)
    runs = load_runs(tmp_path)
    assert {run.name for run in runs} == {f"{kind.name}-seed0" for kind in KINDS}
    for run in runs:
        assert run.status == "finished"
        assert len(run.samples) == 4_000
        assert (run.scores["trajectory_error"] < 0.02).all()
        ratio = run.scores["angle_ratio"].median()
        # rescaled at the drop, and else at 10^−½ after it
        assert ratio == pytest.approx(1.0 if "rescaled" in run.name else 0.4, abs=0.05)


def test_samples_lie_as_far_apart_as_asked(tmp_path: Path) -> None:
    generate_runs(tmp_path, 1, layers=2, samples=100, interval=20)
    samples = load_runs(tmp_path)[0].samples
    assert samples["step"].unique().tolist() == list(range(0, 2_000, 20))
    assert sum(len(pd.read_parquet(file)) for file in sample_files(tmp_path)) == 200


def test_the_table_is_timed_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    assert main(["speed", "table", "--runs", "4", *SMALL, "--json", str(figures)]) == 0
    told = capsys.readouterr().out
    assert "- rows: 4, of which 4 with an angle_ratio" in told
    assert "≤" not in told  # limits are for so many runs as they were set for
    measured = json.loads(figures.read_text())
    assert measured["files"] == 16
    assert measured["table"] > 0
    assert measured["memory"] > 0.05
    assert measured["processors"] > 0.3
    assert set(measured["verdicts"]) == {kind.name for kind in KINDS}
    assert sum(measured["verdicts"]["sgd"].values()) == 2


@pytest.mark.parametrize(
    ("seconds", "memory", "judged"),
    [(59.0, 1.9, ["holds", "holds"]), (61.0, 2.1, ["FAILS", "FAILS"])],
)
def test_limits_are_judged(seconds: float, memory: float, judged: list[str]) -> None:
    lines = report([], cost(seconds, memory), table.RUNS, table.LAYERS, table.SAMPLES, 1)
    row = next(line for line in lines if line.startswith("| `smd-hooks table`"))
    assert [word for word in row.replace("|", " ").split() if word in ("holds", "FAILS")] == judged
    small = report([], cost(seconds, memory), 10, table.LAYERS, table.SAMPLES, 1)
    assert not any("holds" in line or "FAILS" in line for line in small)


def test_memory_is_that_of_descendants_too() -> None:
    hold = "import time; held = bytearray(10**8); print(1, flush=True); time.sleep(60)"
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        family = table._descendants(process.pid)
        together = sum(map(table._resident, family))
        alone = table._resident(process.pid)
        for pid in reversed(family):
            os.kill(pid, 9)
    assert len(family) == 2
    assert together > 1e8 > alone


def test_a_table_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="ended with 3: no way"):
        table._peak_memory(
            [sys.executable, "-c", "import sys; print('no way', file=sys.stderr); sys.exit(3)"]
        )


def test_numbers_that_make_no_runs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", "table", "--samples", "5"]) == 2
    assert "--samples 5: give 50 or more" in capsys.readouterr().err
