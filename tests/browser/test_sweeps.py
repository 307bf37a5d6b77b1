"""A sweep's part of the report in a real browser."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smd_hooks.analysis import load_runs
from smd_hooks.analysis.report import write_report
from tests.analysis.report.report_runs import HOSTILE_NAME
from tests.analysis.report.sweep_runs import EXPERIMENT, RATES, ROLES, WARMUPS, write_sweep

from .watched_page import WatchedPage, find_chromium, open_browser, watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None, reason="playwright is not installed"
    ),
    pytest.mark.skipif(
        find_chromium() is None, reason="no Chromium here: see tests/browser/install_chromium.sh"
    ),
]
PANELS = "#view-sweeps .panels .plot"
STARTS = "#view-sweeps .starts .plot"
TRACES = "[...document.querySelectorAll('{}')].map((p) => p.data.map((t) => ({{ ...t }})))"
TEXTS = """
[...document.querySelectorAll('#view-sweeps .plot')].map((plot) =>
  [...plot.querySelectorAll('text')].filter((t) => t.textContent.trim()).map((t) => {
    const { left, right, top, bottom } = t.getBoundingClientRect();
    return { text: t.textContent, left, right, top, bottom };
  }))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_sweep(folder)
    write_report(load_runs(folder), folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def seen(browser: Browser, report: Path) -> Iterator[WatchedPage]:
    with watched(browser, report) as seen:
        seen.wait_for(f"document.querySelectorAll('{PANELS} .scatterlayer').length", len(ROLES))
        yield seen
        assert seen.errors == []
        assert seen.requests == [report.resolve().as_uri()]


def _overlapping(boxes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (a["text"], b["text"])
        for i, a in enumerate(boxes)
        for b in boxes[:i]
        if min(a["right"], b["right"]) - max(a["left"], b["left"]) > 1
        and min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 1
    ]


def test_a_sweep_is_what_one_sees_first(seen: WatchedPage) -> None:
    assert seen.page.locator("#tab-sweeps").get_attribute("aria-selected") == "true"
    headings = seen.page.locator("#view-sweeps h3").all_inner_texts()
    assert headings == [
        f"{EXPERIMENT}: val/loss against learning rate",
        f"{EXPERIMENT}: the first 10 % of training",
    ]
    key = seen.page.locator("#view-sweeps > .key span").all_inner_texts()
    assert key == [f"warmup {warmup:g}" for warmup in WARMUPS]


def test_a_panel_per_role_on_the_same_axes(seen: WatchedPage) -> None:
    panels = seen.evaluate(TRACES.format(PANELS))
    assert len(panels) == len(ROLES)
    for traces in panels:
        lines = [trace for trace in traces if trace.get("meta") == "line"]
        assert [line["x"] for line in lines] == len(WARMUPS) * [list(RATES)]
        assert len({line["line"]["color"] for line in lines}) == len(WARMUPS)
        (best,) = (trace for trace in traces if trace.get("meta") == "best")
        assert best["x"] == [0.002, 0.002]
    ranges = f"[...document.querySelectorAll('{PANELS}')].map((p) => p.layout.yaxis.range.join())"
    assert len(set(seen.evaluate(ranges))) == 1


def test_what_diverged_and_what_is_beyond_stand_at_the_top_edge(seen: WatchedPage) -> None:
    adamw, lionar = seen.evaluate(TRACES.format(PANELS))
    top = seen.evaluate(f"document.querySelector('{PANELS}').layout.yaxis.range[1]")
    lost = [trace for trace in adamw if trace.get("meta") == "lost"]
    beyond = [trace for trace in adamw if trace.get("meta") == "beyond"]
    assert [trace["y"] for trace in [*lost, *beyond]] == 3 * [[top]]
    assert [trace["text"] for trace in lost] == [["warmup 0, lr 0.008: 1 of 3 runs lost"]]
    places = sorted(trace["x"][0] for trace in [*lost, *beyond])
    assert places[1] == pytest.approx(RATES[-1])
    assert places[0] < places[1] < places[2]
    assert not [trace for trace in lionar if trace.get("meta") == "lost"]


def test_first_updates_or_that_they_were_not_measured(seen: WatchedPage) -> None:
    (traces,) = seen.evaluate(TRACES.format(STARTS))
    medians = [trace for trace in traces if trace["line"]["width"] == 2]
    assert len(medians) == 2 * 4
    assert len({trace["line"]["color"] for trace in medians}) == 2
    assert max(medians[0]["x"]) < 10  # percent of the training
    assert seen.page.locator("#view-sweeps .starts").inner_text().count("not measured") == 2


@pytest.mark.parametrize("width", [1280, 1024])
def test_it_fits_and_no_label_covers_another(browser: Browser, report: Path, width: int) -> None:
    with watched(browser, report, viewport={"width": width, "height": 800}) as seen:
        seen.wait_for(f"document.querySelectorAll('{STARTS} .scatterlayer').length", 4)
        assert seen.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        plots = seen.evaluate(TEXTS)
        assert len(plots) == len(ROLES) + 1
        for boxes in plots:
            assert len(boxes) > 6
            assert _overlapping(boxes) == []
            assert max(box["right"] for box in boxes) <= width
        assert _overlapping([plots[0][0], plots[0][0]])  # control


def test_tabs_go_round_by_keyboard(seen: WatchedPage) -> None:
    seen.page.locator("#tab-sweeps").press("ArrowRight")
    assert seen.page.is_visible("#view-run")
    seen.page.locator("#tab-run").press("ArrowLeft")
    assert seen.page.is_visible("#view-sweeps")
    seen.page.locator("#tab-sweeps").press("ArrowLeft")
    assert seen.page.is_visible("#view-compare")


def test_colours_follow_the_system(seen: WatchedPage) -> None:
    colour = f"document.querySelector('{PANELS}').data[0].line.color"
    light = seen.evaluate(colour)
    seen.page.emulate_media(color_scheme="dark")
    seen.wait_for(f"{colour} !== '{light}'", True)


def test_hostile_names_are_text(browser: Browser, tmp_path: Path) -> None:
    write_sweep(tmp_path, experiment=HOSTILE_NAME, option="<img src=x onerror=pwned=1>%{x}")
    write_report(load_runs(tmp_path), tmp_path / "report.html")
    with watched(browser, tmp_path / "report.html") as seen:
        seen.wait_for(f"document.querySelectorAll('{PANELS} .scatterlayer').length", len(ROLES))
        assert HOSTILE_NAME in seen.page.locator("#view-sweeps h3").first.inner_text()
        assert seen.page.locator("main img").count() == 0
        assert seen.evaluate("window.pwned") is None
        assert seen.errors == []
