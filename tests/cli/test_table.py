"""``smd-hooks table``, as it is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis import agreement_table, load_runs
from smd_hooks.analysis.table.table import _WORTH_A_PROCESS
from smd_hooks.cli import main
from tests.analysis.work_dirs import CONFIG, launch, perfect_samples, weight


def measured(folder: Path, seed: int, optimizer: str = "SGD") -> None:
    config = CONFIG.replace("seed=7", f"seed={seed}").replace("'SGD'", f"'{optimizer}'")
    run = {"first_step": 0, "seed": seed, "weights": [weight("a")]}
    samples = perfect_samples(np.arange(60), np.full(60, 0.1), ratio=1 + seed / 100)
    lines = [{"lr": 0.1, "step": 50}, {"accuracy/top1": 90.0 + seed, "step": 100}]
    launch(folder, "20260101_000000", lines, samples, run, config)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    for seed in (0, 1):
        measured(tmp_path / "runs" / f"sgd-seed{seed}", seed)
    measured(tmp_path / "runs" / "adam-seed0", 2, "Adam")
    return tmp_path / "runs"


@pytest.mark.parametrize("suffix", ["csv", "md", "tex", "html", "parquet"])
@pytest.mark.parametrize(
    "options", [[], ["--by"], ["--by", "optimizer"], ["--compare", "sgd", "adam"]]
)
def test_every_table_in_every_format(
    suite: Path, capsys: pytest.CaptureFixture[str], suffix: str, options: list[str]
) -> None:
    path = suite.parent / f"table.{suffix}"
    assert main(["table", str(suite), "-o", str(path), *options]) == 0
    assert capsys.readouterr().out == f"wrote {path}: 3 runs\n"
    if suffix == "parquet":
        assert len(pd.read_parquet(path))
    else:
        text = path.read_text()
        assert "90" in text
        assert ("±" in text or r"\pm" in text) is (bool(options) and suffix != "csv")
        assert ("_std" in text) is (bool(options) and suffix == "csv")


def test_groups_in_a_terminal(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(suite), "--by"]) == 0
    out = capsys.readouterr().out
    assert "90.50 ± 0.71" in out
    assert "sgd-seed" not in out
    assert main(["table", str(suite), "--compare", "sgd", "adam"]) == 0
    assert "1.50" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compare", "sgd", "none"], "--compare: 'none' matches no run; there are adam-seed0"),
        (["--by", "colour"], "--by: runs cannot be grouped by 'colour', but by task"),
        (["-o", "nowhere/table.md"], "nowhere is no folder: make it first"),
        (["-o", "table.docx"], "'.docx' is no table format"),
    ],
)
def test_unusable_options_are_one_line(
    suite: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["table", str(suite), *options]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert not told.out


def test_an_output_that_cannot_be_is_refused_before_runs_are_read(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (suite / "table.md").mkdir()
    (suite / "sgd-seed0" / "20260101_000000" / "vis_data" / "config.py").write_text("a = (")
    assert main(["table", str(suite), "-o", str(suite / "table.md")]) == 2
    assert "warning" not in capsys.readouterr().err


def test_a_warning_is_one_line_whatever_the_file_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = launch(tmp_path / "a\n\x1b[31mb", "20260101_000000", [{"lr": 1, "step": 1}])
    (folder / "vis_data" / "config.py").write_text("a = (")
    assert main(["table", str(tmp_path)]) == 0
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("warning: ")
    assert r"a\n\x1b[31mb/20260101_000000/vis_data/config.py: left out" in line
    assert "\x1b" not in told.out + told.err


def test_warnings_that_came_before_an_error_are_shown(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (suite / "sgd-seed0" / "20260101_000000" / "vis_data" / "config.py").write_text("a = (")
    assert main(["table", str(suite), "--compare", "a", "b"]) == 2
    kinds = [line.split(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert kinds == ["warning", "error"]


def test_a_reader_that_has_seen_enough_is_no_error(suite: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = f"({sys.executable} -m smd_hooks.cli table {suite}; echo code $? >&2) | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=env)
    assert done.stderr == "code 0\n"


def test_two_processes_give_the_table_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(_WORTH_A_PROCESS):
        measured(tmp_path / f"run{number:02d}", number)
    part = next((tmp_path / "run03").rglob("*.parquet"))
    part.write_bytes(b"PAR1")
    runs = load_runs(tmp_path)
    tables, told = [], []
    for processes in (1, 2):
        with pytest.warns(UserWarning, match="left out") as caught:
            tables.append(agreement_table(runs, processes))
        told.append([str(w.message) for w in caught])
    pd.testing.assert_frame_equal(*tables)
    assert told[0] == told[1]
    assert tables[0]["angle_ratio"].nunique() == _WORTH_A_PROCESS - 1
