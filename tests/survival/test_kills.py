"""However often a training is killed, it ends as one that was left in peace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.survival.kills import KINDS, forget_draws, forget_random_state, run_kills
from tests.survival.peace import Peace

pytestmark = pytest.mark.slow


def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    report = run_kills(Peace(tmp_path), 50)
    assert report.losses == []
    assert report.tries == 50
    assert set(report.kills) == set(KINDS)
    assert set(report.runs) == {"iterations", "epochs", "detector"}


@pytest.mark.parametrize(
    ("only", "forget"), [("detector", forget_random_state), ("epochs", forget_draws)]
)
def test_control_what_is_forgotten_shows_in_the_weights(
    tmp_path: Path, only: str, forget: Callable[[], None]
) -> None:
    report = run_kills(Peace(tmp_path, prepare=forget), 3, only=only)
    assert any("checkpoint/state_dict" in line for line in report.losses)
