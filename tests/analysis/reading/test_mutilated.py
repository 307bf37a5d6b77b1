"""Whatever lies in a work dir: it is named, costs no other run anything, and does nothing."""

from __future__ import annotations

import csv
import io
import pickle
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from smd_hooks.analysis import agreement_table, load_runs, over_seeds, render_terminal, write_table
from smd_hooks.records.plain_text import one_line
from tests.analysis.reading.mutilated import HOSTILE, Trap, healthy, mutilate

HEALTHY = ("aa", "mm", "zz")
NUMBER = 240


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    root = tmp_path_factory.mktemp("mutilated")
    for name in HEALTHY:
        healthy(root / name)
    made = mutilate(root / "runs", NUMBER)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = load_runs(root)
        table = agreement_table(runs)
    return root, made, runs, table, [str(w.message) for w in caught]


def row_of(table: pd.DataFrame, runs: list, folder: Path) -> dict:
    (place,) = [i for i, run in enumerate(runs) if run.folder == folder]
    return {name: value for name, value in table.iloc[place].items() if not pd.isna(value)}


def test_there_are_200_of_all_kinds(suite: tuple) -> None:
    _, made, *_ = suite
    assert len(made) >= 200
    assert len({one.kind for one in made}) > 120


def test_every_broken_file_is_named(suite: tuple) -> None:
    _, made, _, _, told = suite
    text = "\n".join(told)
    unnamed = [one for one in made if one.broken and f"{one_line(one.broken)}: " not in text]
    assert [(one.kind, one.broken) for one in unnamed] == []
    assert all(len(line.splitlines()) == 1 and len(line) < 2000 for line in told)


def test_nothing_whole_is_called_broken(suite: tuple) -> None:
    root, made, _, _, told = suite
    whole = [one.folder for one in made if not one.broken and one.kind != "odd samples"]
    whole += [root / n for n in HEALTHY]
    for line in told:
        assert not any(line.startswith(f"{one_line(folder)}/") for folder in whole)


def test_every_run_has_a_row_and_healthy_ones_are_as_they_were(
    suite: tuple, tmp_path: Path
) -> None:
    root, made, runs, table, _ = suite
    healthy(tmp_path / "aa")
    alone = load_runs(tmp_path)
    wanted = row_of(agreement_table(alone), alone, tmp_path / "aa")
    assert wanted["angle_ratio"] == pytest.approx(1, rel=1e-4)
    for name in HEALTHY:
        assert row_of(table, runs, root / name) == {**wanted, "run": name}
    for one in made:
        row = row_of(table, runs, one.folder)
        if one.kind == "odd samples":
            assert row["accuracy/top1"] == 97.5
            assert isinstance(row["verdict"], str)
        elif one.broken is None:
            assert {**row, "run": "", "model": ""} == {**wanted, "run": "", "model": ""}
        elif one.kind.startswith("samples"):  # the rest of the run is there
            assert row["accuracy/top1"] == 97.5
            assert row["verdict"].startswith("too short: no samples")
        elif one.kind.startswith("config"):
            assert row["angle_ratio"] == wanted["angle_ratio"]
        elif one.kind.startswith(("run content", "run a")):
            assert row["verdict"].startswith("not readable: ")


def test_nothing_was_executed(suite: tuple) -> None:
    root, *_ = suite
    assert not list(root.rglob("executed"))


def test_a_control_that_executes_is_caught(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "executed")))
    assert list(tmp_path.rglob("executed"))


# ----------------------------------------------------------------------- in every format


def test_text_for_a_terminal_steers_none(suite: tuple) -> None:
    *_, table, _ = suite
    assert all(line.isprintable() for line in render_terminal(table, 200).split("\n"))


def test_csv_and_parquet_read_back(suite: tuple, tmp_path: Path) -> None:
    *_, table, _ = suite
    write_table(table, tmp_path / "t.csv")
    write_table(table, tmp_path / "t.parquet")
    back = pd.read_parquet(tmp_path / "t.parquet")
    assert back["accuracy/top1"].equals(table["accuracy/top1"])
    rows = list(csv.reader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert {len(row) for row in rows} == {table.shape[1]}
    assert len(rows) == len(table) + 1
    cells = [cell for row in rows for cell in row if not re.fullmatch(r"-?[\d.e+-]+", cell)]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple] = set()

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.seen.add((tag, *sorted(name for name, _ in attributes)))


def test_html_has_no_tag_but_its_own(suite: tuple, tmp_path: Path) -> None:
    *_, table, _ = suite
    write_table(table, tmp_path / "hostile.html")
    write_table(table[table["run"].isin(HEALTHY)], tmp_path / "healthy.html")
    seen = []
    for name in ("hostile", "healthy"):
        parser = _Tags()
        parser.feed((tmp_path / f"{name}.html").read_text())
        seen.append(parser.seen)
    assert seen[0] == seen[1]
    parser = _Tags()
    parser.feed(HOSTILE[1])  # the control: unescaped it would be one
    assert not parser.seen <= seen[0]


def test_markdown_has_as_many_cells_in_each_line_and_no_markup(
    suite: tuple, tmp_path: Path
) -> None:
    *_, table, _ = suite
    write_table(table, tmp_path / "t.md")
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert len(lines) == len(table) + 2
    bare = [re.sub(r"\\[^\w\s]", "", line) for line in lines]  # without what is escaped
    assert {line.count("|") for line in bare} == {table.shape[1] + 1}
    assert not [line for line in bare if re.search(r"[<>`\[\]&~$]|\*(?!\s)", line)]


def test_tex_has_as_many_cells_in_each_row_and_no_command(suite: tuple, tmp_path: Path) -> None:
    *_, table, _ = suite
    write_table(table, tmp_path / "t.tex")
    text = (tmp_path / "t.tex").read_text()
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == (
        rf"\begin{{tabular}}{{{'l' * table.shape[1]}}}",
        r"\end{tabular}",
    )
    rows = [line.removesuffix(r" \\") for line in lines[1:-1] if line != r"\hline"]
    assert len(rows) == len(table) + 1
    ours = r"\\(text(backslash|ascii(tilde|circum)|less|greater|bar|quotedbl)|dots)\{\}"
    maths = r"\$(\\?[a-zA-Z|]+|-|\^2)\$"
    for row in rows:
        bare = re.sub(rf"{ours}|{maths}|\{{[[*]\}}|\\[&%$#_{{}}]", "", row)
        assert bare.count("&") == table.shape[1] - 1
        assert not re.search(r"[\\%$#_{}~^<>|\"]", bare), bare
        assert bare.isascii() or set(filter(lambda c: ord(c) > 127, bare)) <= set("àéöü")


def test_groups_of_them_are_written_too(suite: tuple, tmp_path: Path) -> None:
    _, _, runs, table, _ = suite
    grouped = over_seeds(table, runs)
    for suffix in ("csv", "md", "tex", "html", "parquet"):
        write_table(grouped, tmp_path / f"t.{suffix}")
    assert grouped["runs"].sum() <= len(table)


def test_the_same_seed_makes_the_same_folders(tmp_path: Path) -> None:
    def kinds(folder: str) -> list[tuple[str, str]]:
        return [(m.kind, m.folder.name) for m in mutilate(tmp_path / folder, 30, seed=5)]

    assert kinds("one") == kinds("two")
