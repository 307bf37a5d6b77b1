from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from smd_hooks.records import PlannedRun, read_suite, suite, write_suite


def test_what_is_planned_is_read_back_and_stays_when_more_is(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    write_suite(folder, {"a": PlannedRun("a.py"), "b": PlannedRun("b.py")})
    write_suite(folder, {"b": PlannedRun("b.py", "no disk"), "c/d": PlannedRun("c.py")})
    planned = read_suite(folder)
    assert list(planned) == ["a", "b", "c/d"]
    assert (planned["a"].failed, planned["b"].failed) == ("", "no disk")
    assert planned["b"].updated > planned["a"].updated > 1e9
    assert read_suite(tmp_path) == {}


@pytest.mark.parametrize("alone", [True, False])
def test_several_that_write_at_once_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """Control: without waiting for each other they do, having all read before any writes."""
    read: Callable = suite._read
    all_have_read = multiprocessing.get_context("fork").Barrier(4)

    def slowly(folder: Path) -> object:
        found = read(folder)
        if alone:
            time.sleep(0.02)
        else:
            all_have_read.wait(60)
        return found

    monkeypatch.setattr(suite, "_read", slowly)
    if not alone:
        monkeypatch.setattr(suite, "held", lambda path: nullcontext())
    children = []
    for writer in range(4):
        children.append(os.fork())
        if not children[-1]:
            for entry in range(5):
                write_suite(tmp_path, {f"{writer}-{entry}": PlannedRun("c.py")})
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    monkeypatch.undo()
    assert (len(read_suite(tmp_path)) == 20) is alone
    assert [path.name for path in tmp_path.iterdir()] == ["suite.json"]


@pytest.mark.parametrize(
    "name", ["../../x", "/etc", "a/../../x", "", ".", "x" * 400, "..", "a\\n/../.."]
)
def test_a_name_that_leads_elsewhere_is_left_out(tmp_path: Path, name: str) -> None:
    runs = {name: {"config": "a.py"}, "fine": {"config": "b.py"}}
    (tmp_path / "suite.json").write_text(json.dumps({"runs": runs}))
    with pytest.warns(UserWarning, match=r"suite.json: left out, run .* not a folder below"):
        assert list(read_suite(tmp_path)) == ["fine"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"runs": ["a"]}', '{"runs": {"a": 5}}', "\x00", "[" * 100_000]
    + [f'{{"runs": {{"a": {e}}}}}' for e in ('{"config": 1}', '{"failed": []}',
                                            '{"updated": NaN}', '{"updated": "now"}')],
)  # fmt: skip
def test_another_program_s_suite_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "suite.json").write_text(content)
    with pytest.warns(UserWarning, match=r"suite.json: left out"):
        assert read_suite(tmp_path) == {}


@pytest.mark.parametrize("content", ["{", '{"runs": ["a"]}', '{"runs": {"a": 5, "b": {}}}'])
def test_a_broken_suite_is_kept_aside_when_more_is_planned(tmp_path: Path, content: str) -> None:
    for name in ("suite.json.broken", "suite.json.broken1"):
        (tmp_path / "suite.json").write_text(content)
        with pytest.warns(UserWarning, match=f"suite.json: kept aside as {name}, "):
            write_suite(tmp_path, {"c": PlannedRun("c.py")})
        assert (tmp_path / name).read_text() == content
        assert list(read_suite(tmp_path)) == (["b", "c"] if "b" in content else ["c"])
    write_suite(tmp_path, {"d": PlannedRun("d.py")})
    assert not (tmp_path / "suite.json.broken2").exists()


def test_a_folder_of_that_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "suite.json").mkdir()
    with pytest.warns(UserWarning, match=r"suite.json: left out, a folder"):
        assert read_suite(tmp_path) == {}
