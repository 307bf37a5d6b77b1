from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

PYTEST = [
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "-p",
    "tests.without_mmengine",
    "-p",
    "no:cacheprovider",
]


@pytest.mark.slow
def test_the_probe_passes_its_tests_where_mmengine_cannot_be_imported() -> None:
    tests = map(str, sorted((ROOT / "tests/measure").glob("test_probe*.py")))
    done = subprocess.run([*PYTEST, *tests], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_control_the_hook_does_not() -> None:
    done = subprocess.run(
        [*PYTEST, "tests/hooks/test_smd_hook.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert "cannot be imported here" in done.stdout
