"""Work is shared out whole, and does not hang in a forked process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from smd_hooks.measure.compiled_c import PIECE, share_out


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("elements", [[], [0], [5], [PIECE] * 7, [3 * PIECE, 1, 1], [0, 0, PIECE]])
def test_every_piece_is_done_once(elements: list[int]) -> None:
    done = np.zeros(len(elements), int)

    def work(share: slice) -> None:
        done[share] += 1

    share_out(work, np.array(elements, np.int64))
    assert (done == 1).all()


@pytest.mark.usefixtures("two_threads")
def test_errors_of_other_threads_are_raised() -> None:
    def work(share: slice) -> None:
        if share.stop == 2:
            raise ArithmeticError("here")

    with pytest.raises(ArithmeticError, match="here"):
        share_out(work, np.array([PIECE, PIECE]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("two_threads")
def test_a_forked_process_has_threads_of_its_own() -> None:
    two_pieces = np.array([PIECE, PIECE])
    share_out(lambda share: None, two_pieces)
    child = os.fork()
    if child == 0:
        share_out(lambda share: None, two_pieces)
        os._exit(0)
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0
            return
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child waits for threads that it does not have")
