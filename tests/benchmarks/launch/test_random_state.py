"""Random states survive a checkpoint that torch reads without unpickling objects."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from benchmarks.launch.random_state import (
    capture_random_state,
    random_states_of_all_ranks,
    restore_random_state,
)


def drawn() -> list[float]:
    legacy = np.random  # the global generator is what pipelines draw from
    return [random.random(), random.gauss(0, 1), legacy.normal(), float(torch.rand(()))]


def test_what_comes_next_comes_again(tmp_path: Path) -> None:
    drawn()  # a second normal number then waits in Python's generator, and one in NumPy's
    state = capture_random_state()
    first = drawn()
    torch.save(state, tmp_path / "state.pth")
    assert drawn() != first
    restore_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert drawn() == first


def test_alone_a_process_has_all_states() -> None:
    (state,) = random_states_of_all_ranks(capture_random_state())
    first = drawn()
    restore_random_state(state)
    assert drawn() == first
