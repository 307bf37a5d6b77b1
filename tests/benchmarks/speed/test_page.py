from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.speed.page import PAGE, PRINTED, TIMINGS, page
from tests.conftest import ROOT


def test_the_page_is_what_the_timings_printed() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(ROOT / PRINTED)


def test_what_was_not_timed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PRINTED.mkdir(parents=True)
    (PRINTED / "table.md").write_text("# The cost of a table\n\n- 3 s\n\n## more\n# no", "utf-8")
    assert main(["speed", "page"]) == 0
    written = PAGE.read_text(encoding="utf-8")
    assert "\n\n## The cost of a table\n\n- 3 s\n\n### more\n" in written
    missing = "Not measured: `python -m benchmarks speed train > results/speed/train.md`"
    assert missing in written
    assert written.count("Not measured") == len(TIMINGS) - 1
    assert [line for line in written.splitlines() if line.startswith("# ")] == ["# Performance"]
