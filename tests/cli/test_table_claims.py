"""``smd-hooks table --claims``, as it is called."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from smd_hooks.analysis.claims.ledger import CLAIMS, COLUMNS
from smd_hooks.cli import main
from smd_hooks.records import PlannedRun, RunState, write_state, write_suite
from smd_hooks.records.state import NOT_FINITE
from tests.analysis.claims.constructed import stage_run
from tests.analysis.work_dirs import launch

NAME = "smd-fig3-imagenet-noise-free-seed0"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """One control, which has nothing wrong with it: its ledger is all but fine."""
    folder = tmp_path / "smd-replica"
    stage_run(folder / NAME)
    plan = PlannedRun("config.py", experiment="smd-fig3-imagenet", role="noise-free", scale="small")
    write_suite(folder, {NAME: plan})
    return folder


def test_the_ledger_in_a_terminal(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(suite), "--claims"]) == 0  # a reader: whatever holds
    out = capsys.readouterr().out
    assert "smd-fig3-imagenet, small\n" in out
    assert "  DOES NOT FAIL      smd-fig3-imagenet-control-noise-free\n" in out
    assert "  holds              smd-fig3-imagenet-noise-free-law\n" in out


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (RunState("failed", 5, 9, "out of memory"), "1 of 2 finished, 1 failed (out of memory)"),
        (
            RunState("failed", 5, 9, f"{NOT_FINITE} since iteration 5"),
            "1 of 2 finished, 1 diverged",
        ),
        (None, "1 of 2 finished, 1 not ended"),
    ],
)
def test_a_seed_that_failed_is_said_and_not_left_out(
    suite: Path, capsys: pytest.CaptureFixture[str], end: RunState | None, told: str
) -> None:
    other = NAME.replace("seed0", "seed1")
    plan = PlannedRun("config.py", experiment="smd-fig3-imagenet", role="noise-free", scale="small")
    write_suite(suite, {other: plan})
    if end is not None:
        write_state(launch(suite / other, "20260101_000000"), end)
    assert main(["table", str(suite), "--claims"]) == 0
    out = capsys.readouterr().out
    assert f"noise-free: {told}" in out
    assert "  not run            smd-fig3-imagenet-control-noise-free\n" in out
    assert "DOES NOT FAIL" not in out


@pytest.mark.parametrize("suffix", ["csv", "md", "tex", "html", "parquet"])
def test_the_ledger_in_every_format(
    suite: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    path = suite.parent / f"claims.{suffix}"
    assert main(["table", str(suite), "--claims", "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}: {len(CLAIMS)} claims\n"
    if suffix in ("csv", "parquet"):
        table = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
        assert tuple(table.columns) == COLUMNS
        assert len(table) == len(CLAIMS)
    else:
        assert "DOES NOT FAIL" in path.read_text()


def test_plans_of_which_nothing_ran_are_all_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = PlannedRun("config.py", experiment="smd-fig2", role="sgd")
    write_suite(tmp_path, {"smd-fig2-sgd-seed0": plan})
    assert main(["table", str(tmp_path), "--claims"]) == 0
    assert capsys.readouterr().out.endswith(f"{len(CLAIMS)} × not run\n")


def test_runs_of_no_suite_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage_run(tmp_path / NAME)
    assert main(["table", str(tmp_path), "--claims"]) == 2
    told = capsys.readouterr()
    assert "belongs to an experiment: claims are checked on what 'python -m benchmarks" in told.err
    assert told.err.count("\n") == 1
    assert not told.out


def test_claims_are_not_grouped(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["table", str(suite), "--claims", "--by"])
    assert stopped.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
