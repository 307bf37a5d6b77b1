"""Full and read-only disks, clocks set back, two launches or sweeps at once, edited suites."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.survival import disturbances, sweeps
from tests.survival.disturbances import Disturbed
from tests.survival.peace import Peace

pytestmark = pytest.mark.slow
TRIES = 3


@pytest.fixture(scope="module")
def peace(tmp_path_factory: pytest.TempPathFactory) -> Peace:
    return Peace(tmp_path_factory.mktemp("disturbed"))


@pytest.mark.parametrize(
    "disturb", [*disturbances.ALL, *sweeps.ALL], ids=lambda disturb: disturb.__name__
)
def test_nothing_is_lost(disturb: disturbances.Disturbance, peace: Peace) -> None:
    if disturb in disturbances.NEEDS_DISK and not disturbances.can_mount(peace.folder):
        pytest.skip("mounting a small disk needs root")
    found: Disturbed = disturb(peace, TRIES)
    assert found.tries == TRIES
    assert not found.losses, "\n".join(found.losses)


def test_control_another_training_is_told_apart(peace: Peace) -> None:
    """What is compared is not the same by itself: another seed's run differs everywhere."""
    case = peace.cases[0]
    found = Disturbed("another seed")
    disturbances.train(case, peace.folder / "another seed", "--seed", "1")
    disturbances.judge(found, peace, case, peace.folder / "another seed", 0)
    parts = ("checkpoint/state_dict", "samples", "logged")
    assert all(any(part in line for line in found.losses) for part in parts), found.losses


def test_a_clock_back_is_no_other_order_of_launches(tmp_path: Path) -> None:
    """Folders of launches sort as they were launched, whatever the clock said."""
    from benchmarks.launch.runner import later_stamp

    (tmp_path / "20260131_235959").mkdir()
    assert later_stamp(tmp_path, "20260130_120000") == "20260201_000000"
    assert later_stamp(tmp_path, "20260131_235959") == "20260201_000000"
    assert later_stamp(tmp_path, "20260301_000000") == "20260301_000000"
