from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.engines import elsewhere
from benchmarks.engines.elsewhere import wait_for_one
from benchmarks.engines.training import Training
from smd_hooks.records import RunState, write_state


def test_what_others_train_is_waited_for_until_one_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = [Training(name, "c.py", tmp_path / name) for name in ("one", "two")]
    seen = []
    shown: list[list[tuple[str, int, int]]] = []

    def is_alive(training: Training) -> bool:
        seen.append(training.name)
        write_state(training.work_dir / "20260101_000000", RunState("running", len(seen), 90))
        return seen.count("two") < 3 or training.name == "one"

    monkeypatch.setattr(elsewhere, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(
        elsewhere.Display,
        "show",
        lambda self, looks: shown.append([(look.name, look.done, look.length) for look in looks]),
    )
    wait_for_one(trainings, is_alive)
    assert shown == [[("one", 1, 90), ("two", 2, 90)], [("one", 3, 90), ("two", 4, 90)]]
