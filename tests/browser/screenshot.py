"""Takes the picture of a report: ``python -m tests.browser.screenshot WORK_DIR FILE.png``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from smd_hooks.analysis import load_runs
from smd_hooks.analysis.report import write_report

from .watched_page import open_browser, watched


def main() -> None:
    """Write the report of the runs below a folder and what one sees of it first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        report = Path(folder) / "report.html"
        write_report(load_runs(args.folder), report)
        size = {"width": 1366, "height": 1062}
        with watched(browser, report, viewport=size, color_scheme="light") as seen:
            seen.page.screenshot(path=args.picture)
    print(f"wrote {args.picture}")


if __name__ == "__main__":
    main()
