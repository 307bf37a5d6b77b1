"""The report in a real browser: what it draws, what it asks for, what it lets run."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from smd_hooks.analysis import load_runs
from smd_hooks.analysis.report import write_report
from tests.analysis.reading.mutilated import mutilate
from tests.analysis.report.report_runs import HOSTILE_LAYERS, HOSTILE_NAME, write_all_kinds

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
CURVES = "document.getElementById('{}').data.filter((t) => t.meta === 'layer').length"
ROWS = "document.getElementById('diagnosis').tBodies[0].rows.length"
HEAT_ROWS = "document.getElementById('heat').data[0].z.length"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
TICKS = "getComputedStyle(document.querySelector('#angles .xtick text')).fill"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_all_kinds(folder)
    runs = sorted(load_runs(folder), key=lambda run: run.name != "dropped")
    write_report(runs, folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def seen(browser: Browser, report: Path) -> Iterator[WatchedPage]:
    """The page; after each test nothing may have gone wrong or been asked for."""
    with watched(browser, report) as seen:
        yield seen
        assert seen.errors == []
        assert seen.requests == [report.resolve().as_uri()]
        assert seen.evaluate("window.pwned") is None


def _choose(seen: WatchedPage, name: str) -> None:
    seen.page.get_by_role("button", name=name, exact=True).click()
    assert seen.page.inner_text("#name") == name


def test_plots_are_drawn(seen: WatchedPage) -> None:
    for plot in ("angles", "norms"):
        assert seen.evaluate(CURVES.format(plot)) == 8
        assert seen.page.locator(f"#{plot} .scatterlayer .trace").count() >= 9
    assert seen.evaluate(HEAT_ROWS) == 8
    assert seen.page.locator("#heat .heatmaplayer image").count() == 1
    assert seen.page.locator("#history .scatterlayer .trace").count() == 3
    assert "lr 0.01" in seen.page.locator("#angles .annotation-text").all_text_contents()
    assert seen.page.locator("#stages tbody tr").count() == 2
    assert seen.evaluate(ROWS) == 9
    for title in ("optimizer step", "Δ/Δ*"):
        assert title in seen.page.locator("#angles .infolayer").text_content()


def test_the_curves_change_to_angles(seen: WatchedPage) -> None:
    seen.page.get_by_label("Δ in rad/step").check()
    assert "Δ [rad/step]" in seen.page.locator("#angles .infolayer").text_content()
    names = seen.evaluate("document.getElementById('angles').data.map((t) => t.name)")
    assert {"median", "trajectory law, median", "Δ*, in advance"} <= set(names)
    assert seen.evaluate("document.getElementById('angles').layout.yaxis.type") == "log"


def test_the_filter_leaves_what_it_names(seen: WatchedPage) -> None:
    seen.page.fill("#filter", "LAYER3")
    seen.wait_for(ROWS, 1)
    assert seen.evaluate(CURVES.format("angles")) == 1
    assert seen.evaluate(CURVES.format("norms")) == 1
    assert seen.evaluate(HEAT_ROWS) == 1
    assert seen.page.inner_text("#count") == "1 of 8 layers"
    seen.page.fill("#filter", ".*")  # no regular expression
    seen.wait_for(ROWS, 0)
    assert seen.evaluate(CURVES.format("angles")) == 0
    seen.page.fill("#filter", "")
    seen.wait_for(ROWS, 9)
    assert seen.evaluate(CURVES.format("angles")) == 8


def test_a_layer_is_shown_alone_and_again_with_all(seen: WatchedPage) -> None:
    layer = seen.page.get_by_role("button", name="layer5.conv", exact=True)
    layer.click()
    assert seen.evaluate(CURVES.format("angles")) == 1
    layer.click()
    assert seen.evaluate(CURVES.format("angles")) == 8


def test_another_run_is_chosen_by_keyboard(seen: WatchedPage) -> None:
    row = seen.page.get_by_role("button", name="turned", exact=True)
    row.focus()
    seen.page.keyboard.press("Enter")
    assert seen.page.inner_text("#name") == "turned"
    assert seen.evaluate(CURVES.format("angles")) == 2
    assert row.get_attribute("aria-pressed") == "true"


def test_a_run_without_curves_says_why(seen: WatchedPage) -> None:
    for name, told in (
        ("foreign", "Not measured: its config needs custom_imports"),
        ("nothing", "Nothing is scale-invariant"),
        ("short", "Too short"),
        ("failed", "Failed: ValueError: <script>window.pwned=1</script>"),
    ):
        _choose(seen, name)
        assert told in seen.page.inner_text("#message")
        assert not seen.page.is_visible("#angles")
        assert seen.page.is_visible("#history")
    _choose(seen, "dropped")
    assert seen.page.is_visible("#angles")
    assert not seen.page.is_visible("#message")


def test_runs_are_compared(seen: WatchedPage) -> None:
    tab = seen.page.get_by_role("tab", name="Compare 3 runs")
    tab.click()
    count = "document.getElementById('compare').data.length"
    assert seen.evaluate(count) == 3
    seen.page.get_by_label("compare turned").uncheck()
    assert seen.evaluate(count) == 2
    seen.page.get_by_role("button", name="none").click()
    assert seen.page.inner_text("#compare-message") == "Tick runs in the table."
    seen.page.get_by_role("button", name="all", exact=True).click()
    assert seen.evaluate(count) == 3
    seen.page.keyboard.press("Tab")
    tab = seen.page.locator("#tab-compare")
    tab.press("ArrowLeft")
    assert seen.page.is_visible("#view-run")


def test_the_table_sorts_numbers_by_value_and_what_is_unknown_last(seen: WatchedPage) -> None:
    heading = seen.page.get_by_role("columnheader", name="trajectory error").get_by_role("button")
    column = heading.evaluate("(b) => b.closest('th').cellIndex")
    rows = "[...document.getElementById('runs').tBodies[0].rows]"
    keys = f"{rows}.map((row) => row.cells[{column}].dataset.key)"
    heading.click()
    up = seen.evaluate(keys)
    heading.click()
    down = seen.evaluate(keys)
    known = [float(key) for key in up if key]
    assert len(known) == 3
    assert known == sorted(known)
    assert [float(key) for key in down if key] == known[::-1]
    assert up[3:] == down[3:] == 4 * [""]


def test_hostile_names_are_shown_as_text(seen: WatchedPage) -> None:
    _choose(seen, HOSTILE_NAME)
    assert seen.evaluate(CURVES.format("angles")) == 3
    for scale in ("angle", "ratio"):
        seen.page.locator(f"input[value={scale}]").check()
    shown = seen.page.locator("#diagnosis tbody th").all_inner_texts()
    assert shown[:2] == [name.removesuffix(".weight") for name in HOSTILE_LAYERS[:2]]
    legend = " ".join(seen.page.locator("#angles .legendtext").all_text_contents())
    assert "<img src=x onerror=window.pwned=1>" in legend
    assert "<b>{{ 7 * 7 }}</b> &" in legend
    ticks = " ".join(seen.page.locator("#heat .ytick text").all_text_contents())
    assert "<img src=x" in ticks
    assert seen.page.locator("main img").count() == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_work_dirs_can_all_be_looked_at(browser: Browser, tmp_path: Path) -> None:
    mutilate(tmp_path / "runs", 200)
    runs = load_runs(tmp_path / "runs")
    write_report(runs, tmp_path / "report.html")
    with watched(browser, tmp_path / "report.html") as seen:
        for i in range(len(runs)):
            seen.evaluate(f"document.querySelectorAll('button.run')[{i}].click()")
            name = seen.evaluate(f"document.querySelectorAll('button.run')[{i}].textContent")
            assert seen.evaluate("document.getElementById('name').textContent") == name
        assert seen.errors == []
        assert len(seen.requests) == 1
        assert seen.evaluate("window.pwned") is None


def test_dark_mode_differs_and_follows_the_system(browser: Browser, report: Path) -> None:
    with watched(browser, report, color_scheme="dark") as seen:
        dark = seen.evaluate(BACKGROUND), seen.evaluate(TICKS)
        seen.page.emulate_media(color_scheme="light")
        seen.wait_for(f"{TICKS} !== '{dark[1]}'", True)
        light = seen.evaluate(BACKGROUND), seen.evaluate(TICKS)
        assert light[0] == "rgb(255, 255, 255)"
        assert dark[0] != light[0]
        assert dark[1] != light[1]
        seen.page.emulate_media(color_scheme="dark", media="print")
        assert seen.evaluate(BACKGROUND) == "rgb(255, 255, 255)"
        seen.wait_for(TICKS, "rgb(0, 0, 0)")
        assert not seen.page.is_visible("#filter")
        assert seen.errors == []


def test_it_fits_a_laptop(seen: WatchedPage) -> None:
    wide = "document.documentElement.scrollWidth <= window.innerWidth"
    assert seen.evaluate(wide)
    seen.page.get_by_label("all columns").check()
    assert seen.evaluate(wide)  # the table scrolls, the page does not
    assert seen.page.get_by_role("columnheader", name="weight_decay").first.is_visible()


def test_what_goes_wrong_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    """Controls: an error, an exception, a request, and a script in a name."""
    page = "<body><script>{}</script><p>{}</p></body>"
    scripts = {
        "console.error('told')": "told",
        "throw new Error('thrown')": "thrown",
        "fetch('http://127.0.0.1:9/')": "ERR_INTERNET_DISCONNECTED",
    }
    path = tmp_path / "control.html"
    for script, error in scripts.items():
        path.write_text(page.format(script, HOSTILE_NAME))
        with watched(browser, path) as seen:
            seen.wait_for("window.pwned", 1)
            seen.page.wait_for_timeout(100)
            assert error in " ".join(seen.errors)
            assert len(seen.requests) == 1 + ("fetch" in script)


def test_a_script_that_is_not_ours_is_refused(
    browser: Browser, report: Path, tmp_path: Path
) -> None:
    injected = tmp_path / "injected.html"
    text = report.read_text("utf-8").replace("</body>", "<script>window.pwned=1</script></body>")
    injected.write_text(text, "utf-8")
    with watched(browser, injected) as seen:
        assert any("Content Security Policy" in error for error in seen.errors)
        assert seen.evaluate("window.pwned") is None
