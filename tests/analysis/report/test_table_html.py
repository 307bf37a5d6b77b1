from __future__ import annotations

import math

import pandas as pd
import pytest

from smd_hooks.analysis.report.table_html import cells, columns, show_two

TABLE = pd.DataFrame(
    {
        "run": ["a", "b"],
        "status": ["finished", "missing"],
        "lr": [0.1, None],
        "accuracy/top1": [97.5, None],
        "coco/bbox_mAP": [None, None],
        "angle_ratio": [0.98765, math.nan],
        "angle_ratio_p05": [0.9, math.nan],
        "angle_ratio_p95": [1.1, math.nan],
        "in_equilibrium": [0.25, math.nan],
        "verdict": ["in equilibrium", "<b>missing</b>"],
        "something_new": [1, 2],
    }
)


def test_empty_columns_go_and_unknown_ones_stay() -> None:
    shown = {column.name: column for column in columns(TABLE)}
    assert "coco/bbox_mAP" not in shown
    assert "run" not in shown
    assert shown["something_new"].heading == "something_new"
    assert shown["accuracy/top1"].heading == "top-1 [%]"
    assert {name for name, c in shown.items() if c.extra} == {
        "lr",
        "angle_ratio_p05",
        "angle_ratio_p95",
    }
    styles = {name: column.style for name, column in shown.items()}
    assert (styles["lr"], styles["verdict"], styles["status"]) == ("number", "words", "state")


def test_cells_show_little_and_sort_by_all() -> None:
    first, second = (
        {column.name: cell for column, cell in cells(row, columns(TABLE))}
        for row in TABLE.to_dict("records")
    )
    assert (first["angle_ratio"].text, first["angle_ratio"].below) == ("0.99", "0.90–1.10")
    assert float(first["angle_ratio"].key) == 0.98765
    assert first["in_equilibrium"].text == "25 %"
    assert first["accuracy/top1"].text == "97.5"
    unknown = second["angle_ratio"]
    assert (unknown.text, unknown.below, unknown.key) == ("", "", "")
    assert second["verdict"].text == "<b>missing</b>"  # the template's work


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.0, "1.00"), (0.0, "0.00"), (-0.5, "-0.50"), (1.7e-8, "1.7e-08"), (math.nan, "")],
)
def test_ratios_and_errors(value: float, shown: str) -> None:
    assert show_two(value) == shown
