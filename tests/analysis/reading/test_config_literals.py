from __future__ import annotations

import math
from pathlib import Path

import pytest
from mmengine.config import Config

from smd_hooks.analysis.reading.config_literals import read_config
from smd_hooks.records.foreign_files import Unreadable


def test_reads_what_mmengine_dumps(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text(
        "model = dict(type='A', depth=-1, norm=dict(eps=1e-05), scale=(1, 2), odd={'a.b': None})\n"
        "milestones = [30, 60]\n"
        "resume = False\n"
    )
    assert read_config(path).values == {
        "model": {
            "type": "A",
            "depth": -1,
            "norm": {"eps": 1e-5},
            "scale": (1, 2),
            "odd": {"a.b": None},
        },
        "milestones": [30, 60],
        "resume": False,
    }


def test_reads_what_mmengine_dumps_of_keys_that_are_no_names(tmp_path: Path) -> None:
    keys = {".bn.": dict(lr_mult=0.1), "fc.weight": dict(rotational=False)}
    optim_wrapper = dict(optimizer=dict(type="AdamW"), paramwise_cfg=dict(custom_keys=keys))
    Config(dict(optim_wrapper=optim_wrapper)).dump(str(tmp_path / "config.py"))
    assert read_config(tmp_path / "config.py").values == {"optim_wrapper": optim_wrapper}


def test_nothing_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "config.py"
    path.write_text(
        f"import pathlib\npathlib.Path({str(trap)!r}).touch()\n"
        f"a = pathlib.Path({str(trap)!r}).touch()\nb = [open({str(trap)!r}, 'w')]\nc = 1\n"
    )
    found = read_config(path)
    assert found.values == {"c": 1}
    assert found.left_out == [1, 2, 3, 4]
    assert not trap.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model = dict(", "was never closed, line 1"),
        ("a = " + "[" * 10_000, "too many nested parentheses"),
        ("a = " + "-" * 100_000 + "1", "too deeply nested"),
        ("a = b" + ".c" * 100_000, "recursion"),
        ("a = 1\n" * 1_000_000, "6 MiB, more than the 4 it may have"),
        ("a = " + "9" * 5000, "Exceeds the limit"),
        ("a = 1\0", "null bytes"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "config.py"
    path.write_text(text)
    with pytest.raises(Unreadable, match=reason):
        read_config(path)


def test_numbers_as_python_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text("a = [inf, -inf, 1e999, -True]\nb = {[1]: 2}\nc = 1j\nd, e = 1, 2\n")
    found = read_config(path)
    assert found.values == {"a": [math.inf, -math.inf, math.inf, -1]}
    assert found.left_out == [2, 3, 4]


def test_text_in_it_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text(r"a = dict(b='x\n\x1b[2J\ud800')")
    assert read_config(path).values == {"a": {"b": r"x\n\x1b[2J\ud800"}}
