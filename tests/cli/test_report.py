from __future__ import annotations

import sys
from pathlib import Path

import pytest

from smd_hooks.cli import main
from tests.analysis.report.markup import read_markup
from tests.analysis.report.report_runs import dropped
from tests.analysis.work_dirs import CONFIG, launch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dropped(("a.weight", "b.weight"), tmp_path / "runs" / "ours")
    launch(tmp_path / "runs" / "theirs", "20260101_000000", [{"lr": 1, "step": 1}], config=CONFIG)
    return tmp_path


def test_one_file_and_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, figures = folder / "report.html", folder / "figures"
    arguments = ["report", str(folder / "runs"), "-o", str(output), "--figures", str(figures)]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[0].startswith(f"wrote {output}: 2 runs, ")
    assert told.out.splitlines()[1] == f"wrote 6 figures below {figures}"
    assert told.err == ""
    assert {"ours", "theirs"} <= set(read_markup(output).texts)
    assert {path.name for path in figures.iterdir()} == {"ours"}


@pytest.mark.parametrize(
    ("runs", "output", "told"),
    [
        ("runs", "report.pdf", "a report is an HTML file"),
        ("empty", "report.html", "no run found below"),
        ("missing", "report.html", "missing"),
        ("runs", "no/such/folder/report.html", "no/such/folder is no folder: make it first"),
    ],
)
def test_unusable_input_gets_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], runs: str, output: str, told: str
) -> None:
    (folder / "empty").mkdir()
    assert main(["report", str(folder / runs), "-o", str(folder / output)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error


def test_a_missing_package_gets_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["report", str(folder / "runs"), "-o", str(folder / "report.html")]) == 2
    told = "error: a report needs plotly and jinja2: pip install 'smd-hooks[report]'\n"
    assert capsys.readouterr().err == told
