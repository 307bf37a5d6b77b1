from __future__ import annotations

import base64
import hashlib
import re
import sys
from pathlib import Path

import pytest

from smd_hooks.analysis import load_runs
from smd_hooks.analysis.report import page, write_report
from tests.analysis.reading.mutilated import mutilate
from tests.analysis.report.markup import Markup, read_markup
from tests.analysis.report.report_runs import HOSTILE_NAME, dropped, write_all_kinds
from tests.analysis.report.sweep_runs import write_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_all_kinds(folder)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    path = folder / "report.html"
    write_report(load_runs(folder), path)
    return path


@pytest.fixture(scope="module")
def markup(report: Path) -> Markup:
    return read_markup(report)


def test_nothing_is_loaded_from_elsewhere(report: Path, markup: Markup) -> None:
    assert markup.loads == []
    style = re.search(r"<style>(.*?)</style>", report.read_text("utf-8"), re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "default-src 'none'" in markup.meta["Content-Security-Policy"]
    control = Markup('<img src="http://x/y.png"><link rel="stylesheet" href="//x/y.css">')
    assert len(control.loads) == 2


def test_only_our_scripts_may_run(markup: Markup) -> None:
    digests = [hashlib.sha256(script.encode()).digest() for script in markup.scripts]
    allowed = {f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests}
    policy = markup.meta["Content-Security-Policy"].split("script-src ")[1]
    assert set(policy.split()) == allowed
    assert len(allowed) == 1 + len(page.SCRIPTS)
    assert markup.handlers == []


def test_hostile_names_are_text(markup: Markup) -> None:
    assert "img" not in markup.tags
    assert "b" in markup.tags  # the page has some of its own, so names with <b> prove nothing
    assert HOSTILE_NAME in markup.texts
    hostile = next(
        data
        for data in markup.data.values()
        if data and "name" in data and data["name"] == HOSTILE_NAME
    )
    assert hostile["layers"][0] == "</script><script>window.pwned=1</script>"
    control = Markup(f"<p>{HOSTILE_NAME}</p><img src=x onerror=window.pwned=1>")
    assert HOSTILE_NAME not in control.texts
    assert "img" in control.tags
    assert control.scripts == ["window.pwned=1"]
    assert control.handlers == ["onerror"]


def test_a_row_and_a_block_for_every_run(markup: Markup) -> None:
    shown = {"dropped", "turned", "foreign", "nothing", "short", "failed", HOSTILE_NAME}
    assert shown <= set(markup.texts)
    assert {block["name"] for name, block in markup.data.items() if name != "medians"} == shown
    assert sum(median is not None for median in markup.data["medians"]) == 3
    assert "7 runs" in markup.texts


def test_what_is_advance_and_what_is_consistency_is_said(report: Path) -> None:
    text = " ".join(report.read_text("utf-8").split())
    assert "tests a prediction made in advance" in text
    assert "is a consistency test" in text


def test_one_run_and_none(tmp_path: Path) -> None:
    dropped(("a.weight",), tmp_path / "only")
    write_report(load_runs(tmp_path), tmp_path / "one.html")
    assert "1 run" in read_markup(tmp_path / "one.html").texts
    write_report([], tmp_path / "none.html")
    assert "0 runs" in read_markup(tmp_path / "none.html").texts


def test_records_that_break_a_description_cost_one_run(folder: Path, tmp_path: Path) -> None:
    some = {run.name: run for run in load_runs(folder)}
    vars(some["dropped"])["stages"] = "no table"
    with pytest.warns(UserWarning, match="dropped: no curves"):
        write_report([some["dropped"], some["turned"]], tmp_path / "report.html")
    broken, whole = (read_markup(tmp_path / "report.html").data[f"run-{i}"] for i in (0, 1))
    assert broken["message"].startswith("These records cannot be shown")
    assert broken["status"] == "finished"
    assert whole["layers"] == ["a", "b"]


def test_a_sweep_has_a_tab_of_its_own(report: Path, tmp_path: Path) -> None:
    write_sweep(tmp_path, experiment=HOSTILE_NAME, option="</script><img src=x onerror=pwned()>")
    write_report(load_runs(tmp_path), tmp_path / "report.html")
    markup = read_markup(tmp_path / "report.html")
    assert "Sweep" in markup.texts
    assert markup.data["sweep-0"]["experiment"] == HOSTILE_NAME
    assert (markup.handlers, markup.loads) == ([], [])
    assert len(markup.scripts) == 1 + len(page.SCRIPTS)
    without = read_markup(report)  # control: none of its runs is part of a grid
    assert "Sweep" not in without.texts
    assert "sweep-0" not in without.data


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_escapes_from_broken_work_dirs(tmp_path: Path) -> None:
    made = mutilate(tmp_path / "runs", 200)
    runs = load_runs(tmp_path / "runs")
    write_report(runs, tmp_path / "report.html")
    markup = read_markup(tmp_path / "report.html")
    assert len(markup.data) - 1 == len(runs) >= len(made)
    assert len(markup.scripts) == 1 + len(page.SCRIPTS)
    assert (markup.handlers, markup.loads) == ([], [])
    assert not {"img", "svg", "iframe", "object"} & set(markup.tags)
    assert not (tmp_path / "runs" / "executed").exists()


def test_the_same_runs_make_the_same_file(folder: Path, report: Path) -> None:
    again = folder / "again.html"
    write_report(load_runs(folder), again)
    assert again.read_bytes() == report.read_bytes()


def test_many_runs_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report's curves share one budget: with less of it, they are thinner."""
    for i in range(8):
        dropped(tuple(f"layer{j}.weight" for j in range(10)), tmp_path / f"run{i}")
    sizes = {}
    for budget in (page.CURVE_POINTS, 8 * 10 * 100):
        monkeypatch.setattr(page, "CURVE_POINTS", budget)
        write_report(load_runs(tmp_path), tmp_path / "report.html")
        markup = read_markup(tmp_path / "report.html")
        assert len(markup.data["run-7"]["layers"]) == 10
        sizes[budget] = (tmp_path / "report.html").stat().st_size - sum(map(len, markup.scripts))
    full, thin = sizes.values()
    per_value = full / (8 * 10 * 300 * 4)
    assert per_value < 10  # bytes: four digits and what lies around them
    assert thin < full / 2


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"pip install 'smd-hooks\[report\]'"):
        write_report([], tmp_path / "report.html")
