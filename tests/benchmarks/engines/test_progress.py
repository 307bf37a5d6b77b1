from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.engines import progress
from benchmarks.engines.progress import Display, Look, in_words, remaining_seconds
from benchmarks.engines.training import Training


@pytest.mark.parametrize(
    ("looks", "slots", "seconds"),
    [
        ([], 1, None),
        ([Look("a", "waits", 0, 100)], 1, None),
        ([Look("a", "runs", 0, 100, 0, 5.0)], 1, None),  # it has only begun
        ([Look("a", "runs", 50, 100, 0, 25.0)], 1, 25.0),
        ([Look("a", "runs", 60, 100, 50, 5.0)], 1, 20.0),  # what it went on from took no time now
        ([Look("a", "over", 100, 100, 0, 50.0)], 1, 0.0),
        ([Look("a", "over", 100, 100, 0, 50.0), Look("b", "waits", 0, 300)], 1, 150.0),
        # two at a time, but the long one is one
        ([Look("a", "runs", 100, 200, 0, 50.0), Look("b", "waits", 0, 300)], 2, 150.0),
        ([Look("a", "runs", 50, 100, 0, 25.0), *[Look("b", "waits", 0, 100)] * 3], 2, 87.5),
        # one whose length is not known is like the others
        ([Look("a", "over", 100, 100, 0, 50.0), Look("b", "waits")], 1, 50.0),
    ],
)
def test_remaining_time_is_that_of_the_iterations_left(
    looks: list[Look], slots: int, seconds: float | None
) -> None:
    found = remaining_seconds(looks, slots)
    assert found == (seconds if seconds is None else pytest.approx(seconds))


def test_runs_of_unlike_length_are_not_counted_as_alike() -> None:
    """Control: by the number of runs that are over, half the time would be left."""
    looks = [Look("short", "over", 10, 10, 0, 1.0), Look("long", "waits", 0, 990)]
    assert remaining_seconds(looks, 1) == pytest.approx(99.0)


def test_a_line_says_what_runs() -> None:
    looks = [
        Look("a", "over", 100, 100, 0, 50.0),
        Look("b", "runs", 50, 100, 0, 25.0),
        Look("c", "runs"),
        Look("d", "waits", 20, 100, word="waits to go on"),
        Look("e", "waits"),
    ]
    assert in_words(looks, 2) == (
        "1 of 5 over, b 50/100, c begins, d waits to go on; about 0:01:23 left"
    )
    many = [Look(str(n), "runs", 1, 10, 0, 1.0) for n in range(20)]
    assert in_words(many, 20) == (
        "0 of 20 over, "
        + ", ".join(f"{n} 1/10" for n in range(8))
        + ", 12 more; about 0:00:09 left"
    )


def test_a_log_file_gets_a_line_a_minute_and_no_bars(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    log = io.StringIO()
    trainings = [Training("a", "c.py", Path("a")), Training("b", "c.py", Path("b"))]
    with Display(trainings, 1, Console(file=log, width=40)) as display:
        for second in range(0, 150, 5):
            clock[0] = float(second)
            display.show([Look("a", "runs", second, 150, 0, float(second)), Look("b", "waits")])
        display.say("a broke off: " + "long " * 20)
    lines = log.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("0 of 2 over, a 60/150; about 0:04:00 left")
    assert lines[1].endswith("0 of 2 over, a 120/150; about 0:03:00 left")
    assert lines[2].startswith("a broke off: long long")


def test_a_terminal_gets_a_bar_for_each_and_one_for_all() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=50)
    trainings = [
        Training("first", "c.py", Path("a"), length=40),
        Training("next", "c.py", Path("b")),
    ]
    with Display(trainings, 1, console) as display:
        display.show([Look("first", "runs", 10, 40, 0, 5.0), Look("next", "waits")])
    drawn = screen.getvalue()
    assert "10/40" in drawn
    assert "about 0:00:35 left" in drawn
    for name in ("runs", "first", "next"):
        assert name in drawn
