from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from smd_hooks.analysis.config_literals import read_config


def test_reads_what_mmengine_dumps(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text(
        "model = dict(type='A', depth=-1, norm=dict(eps=1e-05), scale=(1, 2), odd={'a.b': None})\n"
        "milestones = [30, 60]\n"
        "resume = False\n"
    )
    assert read_config(path) == {
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
    assert read_config(tmp_path / "config.py") == {"optim_wrapper": optim_wrapper}


def test_nothing_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "config.py"
    path.write_text(
        f"import pathlib\npathlib.Path({str(trap)!r}).touch()\n"
        f"a = pathlib.Path({str(trap)!r}).touch()\nb = [open({str(trap)!r}, 'w')]\nc = 1\n"
    )
    assert read_config(path) == {"c": 1}
    assert not trap.exists()


def test_what_is_no_python_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text("model = dict(")
    with pytest.raises(SyntaxError):
        read_config(path)
