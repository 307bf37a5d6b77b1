from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smd_hooks.analysis.table.formats import check_output, format_table, write_table

TABLE = pd.DataFrame({"run": ["a"], "lr": [0.1]})
FORMATS = ["csv", "md", "tex", "html", "parquet"]


@pytest.mark.parametrize(
    ("mean", "std", "shown"),
    [
        (0.98123, 0.0213, "0.981 ± 0.021"),
        (97.65, 0.49497, "97.65 ± 0.49"),
        (76.0, 12.3, "76 ± 12"),
        (0.5, 0.0, "0.5 ± 0"),
        (0.5, np.nan, "0.5"),
        (np.nan, np.nan, ""),
        (1.0, np.inf, "1"),
        (1234567.0, 234567.0, "1.235e+06 ± 2.3e+05"),
        (1e-9, 2e-10, "1e-09 ± 2e-10"),
    ],
)
def test_a_mean_is_shown_to_two_digits_of_its_spread(mean: float, std: float, shown: str) -> None:
    text = format_table(pd.DataFrame({"x_mean": [mean], "x_std": [std]}))
    assert text.to_dict("list") == {"x": [shown]}


def test_a_mean_without_a_spread_is_a_column_like_others() -> None:
    text = format_table(pd.DataFrame({"x_mean": [1.5], "y_std": [2.5]}))
    assert text.to_dict("list") == {"x_mean": ["1.5"], "y_std": ["2.5"]}


def test_a_difference_is_shown_with_its_standard_error() -> None:
    text = format_table(pd.DataFrame({"difference": [-0.5], "standard_error": [0.25]}))
    assert text.to_dict("list") == {"difference": ["-0.50 ± 0.25"]}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"table.{suffix}"
    path.write_text("the old one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=rf"table.{suffix}: not written \(No space left on device\)"):
        write_table(TABLE, path)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "the old one"


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_link_stays_a_link(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "link").with_suffix(f".{suffix}").symlink_to(tmp_path / f"real.{suffix}")
    write_table(TABLE, (tmp_path / "link").with_suffix(f".{suffix}"))
    assert (tmp_path / "link").with_suffix(f".{suffix}").is_symlink()
    assert (tmp_path / f"real.{suffix}").stat().st_size > 10
    assert len(os.listdir(tmp_path)) == 2


def test_where_nothing_can_be_written_is_said_beforehand(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is no folder: make it first"):
        check_output(tmp_path / "nowhere" / "table.md")
    (tmp_path / "table.md").mkdir()
    with pytest.raises(IsADirectoryError, match=r"table.md is a folder: give a file"):
        check_output(tmp_path / "table.md")
    with pytest.raises(ValueError, match=r"'' is no table format; use one of \.csv"):
        check_output(tmp_path / "table")


def test_formulas_in_csv_are_text(tmp_path: Path) -> None:
    table = pd.DataFrame({"run": ["=1+1", "-1", "fine"], "x": [-1.0, -2.0, -3.0]})
    write_table(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "run,x", "'=1+1,-1.0", "'-1,-2.0", "fine,-3.0",
    ]  # fmt: skip


def test_signs_of_the_field_in_tex(tmp_path: Path) -> None:
    table = pd.DataFrame({"verdict": ["Δ* at 5 % ± 1_2 ≤ 名"], "x_mean": [1.0], "x_std": [0.1]})
    write_table(table, tmp_path / "t.tex")
    assert (tmp_path / "t.tex").read_text().splitlines()[4] == (
        r"$\Delta${*} at 5 \% $\pm$ 1\_2 $\leq$ {[}U+540D] & 1.00 $\pm$ 0.10 \\"
    )


def test_markdown_of_a_grouped_table(tmp_path: Path) -> None:
    table = pd.DataFrame({"run": ["a|b_c"], "angle_ratio_mean": [1.0], "angle_ratio_std": [0.1]})
    write_table(table, tmp_path / "t.md")
    assert (tmp_path / "t.md").read_text() == (
        "| run | angle_ratio |\n| --- | --- |\n| a\\|b_c | 1.00 ± 0.10 |\n"
    )
