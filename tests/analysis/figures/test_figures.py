from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

from smd_hooks.analysis import load_runs
from smd_hooks.analysis.figures import draw_angular_updates, write_figures
from smd_hooks.analysis.figures.sweeps import first_updates, sweep_panels
from smd_hooks.analysis.report.sweeps import find_sweeps
from tests.analysis.report.report_runs import HOSTILE_LAYERS, dropped, turned
from tests.analysis.report.sweep_runs import EXPERIMENT, write_sweep
from tests.analysis.work_dirs import CONFIG, launch

FIGURES = {f"{n}.{s}" for n in ("angular_update", "heat_map", "norm") for s in ("png", "svg")}
SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml"}


def test_three_figures_of_each_run_in_both_formats(tmp_path: Path) -> None:
    dropped(("a.weight", "b.weight"), tmp_path / "runs" / "plain")
    turned(tmp_path / "runs" / "turned")
    launch(tmp_path / "runs" / "foreign", "20260101_000000", config=CONFIG)
    written = write_figures(load_runs(tmp_path / "runs"), tmp_path / "figures")
    assert {path.relative_to(tmp_path / "figures").as_posix() for path in written} == {
        f"{run}/{figure}" for run in ("plain", "turned") for figure in FIGURES
    }
    for path in written:
        assert path.read_bytes().startswith(SIGNATURES[path.suffix])
        assert path.stat().st_size > 5000


def test_names_make_no_formulas_and_leave_no_folder(tmp_path: Path) -> None:
    for name in ("$x$ {\\frac", "..x", "$x$ {-frac"):
        dropped((*HOSTILE_LAYERS, "$\\frac$.weight"), tmp_path / "runs" / name)
    runs = load_runs(tmp_path / "runs")
    for run, name in zip(runs, ("../../out", "a/b", "a?b"), strict=True):
        run.name = name
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        written = write_figures(runs, tmp_path / "figures")
    below = {path.relative_to(tmp_path / "figures").parent.as_posix() for path in written}
    assert below == {"_.._out", "a_b", "a_b-2"}
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "figures"}


def test_records_that_break_a_figure_cost_one_run(tmp_path: Path) -> None:
    for name in ("broken", "whole"):
        dropped(("a.weight",), tmp_path / "runs" / name)
    runs = load_runs(tmp_path / "runs")
    vars(runs[0])["predicted"] = runs[1].predicted.drop(columns="angle_ratio")
    with pytest.warns(UserWarning, match="broken: no figures"):
        written = write_figures(runs, tmp_path / "figures")
    assert {path.parent.name for path in written} == {"whole"}


def test_figures_of_a_sweep(tmp_path: Path) -> None:
    write_sweep(tmp_path / "runs")
    runs = load_runs(tmp_path / "runs")
    written = write_figures(runs, tmp_path / "figures")
    assert {path.relative_to(tmp_path / "figures").as_posix() for path in written} == {
        f"{EXPERIMENT}/{figure}.{suffix}"
        for figure in ("learning_rates", "first_updates")
        for suffix in ("png", "svg")
    }
    for path in written:
        assert path.read_bytes().startswith(SIGNATURES[path.suffix])
    svg = (tmp_path / "figures" / EXPERIMENT / "learning_rates.svg").read_text()
    assert "<!-- warmup 0.02, lr 0.002: 1.700 -->" in svg
    (sweep,) = find_sweeps(runs)
    panels = sweep_panels(sweep)
    assert [axes.get_ylim() for axes in panels.axes] == 2 * [pytest.approx(sweep.limits)]
    edges = [
        (line.get_marker(), line.get_xdata()[0])
        for line in panels.axes[0].lines
        if len(line.get_xdata()) == 1 and line.get_marker() in ("x", "^")
    ]
    places = sweep.edge_places("adamw")
    assert edges == [("x" if value == 0 else "^", place) for (value, _), place in places.items()]
    assert len(edges) == 3


def test_a_sweep_without_records_has_no_figure_of_first_updates(tmp_path: Path) -> None:
    write_sweep(tmp_path / "runs", measured="")
    (sweep,) = find_sweeps(load_runs(tmp_path / "runs"))
    assert first_updates(sweep) is None
    written = write_figures(load_runs(tmp_path / "runs"), tmp_path / "figures")
    assert {path.stem for path in written} == {"learning_rates"}


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    launch(tmp_path / "foreign", "20260101_000000", config=CONFIG)
    runs = load_runs(tmp_path)
    with pytest.raises(ValueError, match="nothing to draw"):
        write_figures(runs, tmp_path / "figures")
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_angular_updates(runs, tmp_path / "figure.png")


def test_a_missing_matplotlib_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped(("a.weight",), tmp_path / "plain")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        draw_angular_updates(load_runs(tmp_path), tmp_path / "figure.png")
