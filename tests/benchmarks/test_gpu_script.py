"""What of the GPU's script can be seen without one."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.sweep.suite import load_suite
from tests.conftest import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.sh"


def call(*parts: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    script = cwd / "benchmarks" / "gpu.sh"
    return subprocess.run(
        ["bash", str(script), *parts],
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("parts", "says"),
    [(["fig9"], "no part 'fig9'; there are tests measure"), ([], "torch sees no GPU here")],
)
def test_what_it_cannot_do_is_one_line(parts: list[str], says: str) -> None:
    done = call(*parts)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {says}")
    assert done.stderr.count("\n") == 1


def test_the_experiments_that_it_names_are_there() -> None:
    named = re.findall(r"sweep (suites/\w+\.py) (\S+) ", SCRIPT.read_text(encoding="utf-8"))
    assert len(named) == 5
    for suite, experiment in named:
        assert experiment in {one.name for one in load_suite(Path(suite)).experiments}


@pytest.fixture
def pretended(tmp_path: Path) -> Mapping[str, str]:
    """A checkout's script beside a Python that notes what it is called with, and has a GPU."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "gpu.sh").write_text(SCRIPT.read_text(encoding="utf-8"))
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho "$@" | head -n 1 >>"$NOTES"\n'
        'case "$*" in *"speed optim"*) exit 1 ;; *speed*) echo figures ;; esac\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return {"PYTHON": str(python), "NOTES": str(tmp_path / "notes")}


def test_a_part_is_run_once_and_leaves_its_figures_whole(
    tmp_path: Path, pretended: Mapping[str, str]
) -> None:
    done = call("measure", cwd=tmp_path, **pretended)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/gpu/measure.md").read_text() == "figures\n"
    assert call("measure", cwd=tmp_path, **pretended).stdout == "measure: there already\n"
    broken = call("optim", "train", cwd=tmp_path, **pretended)
    assert broken.returncode == 1
    assert not (tmp_path / "results/gpu/optim.md").exists()
    notes = Path(pretended["NOTES"]).read_text()
    assert notes.count("speed measure --training-step") == 1
    assert "speed train" not in notes


@pytest.mark.parametrize("data", ["", "data/nuclei"])
def test_replicas_take_the_data_that_is_named(
    data: str, tmp_path: Path, pretended: Mapping[str, str]
) -> None:
    call("fig3-coco", cwd=tmp_path, NUCLEI=data, **pretended)
    called = Path(pretended["NOTES"]).read_text().splitlines()[-1]
    given = f"--replica {data} --only".replace("  ", " ")
    assert called == (
        f"-m benchmarks sweep suites/smd.py {given} smd-fig3-coco --results results/gpu/fig3-coco"
    )
