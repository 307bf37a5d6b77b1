"""A file that was there survives whatever goes wrong with its successor."""

from __future__ import annotations

from pathlib import Path

import pytest

from smd_hooks.records.whole_files import check_place, whole_file


def write_half(path: Path) -> None:
    with whole_file(path) as file:
        file.write("half")
        raise RuntimeError("half-way")


def test_it_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    with whole_file(path) as file:
        file.write("Δ\n")
        assert not path.exists()
    assert path.read_bytes() == "Δ\n".encode()
    with pytest.raises(RuntimeError, match="half-way"):
        write_half(path)
    assert path.read_text("utf-8") == "Δ\n"
    assert [p.name for p in tmp_path.iterdir()] == ["table.md"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(b"old")
    with (
        pytest.raises(OSError, match=r"table.parquet: not written \(No space left"),
        whole_file(path, "wb"),
    ):
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == b"old"


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "report.html"
    link.symlink_to(tmp_path / "there" / "report.html")
    with whole_file(link) as file:
        file.write("page")
    assert link.is_symlink()
    assert (tmp_path / "there" / "report.html").read_text() == "page"


def test_impossible_places_are_refused_first(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="is a folder"):
        check_place(tmp_path)
    with pytest.raises(OSError, match="make it first"):
        check_place(tmp_path / "nowhere" / "table.md")
