"""The random generators of a process, as plain values that a checkpoint can hold."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object

RandomState = dict[str, Any]
"""``python``, ``numpy``, ``torch`` and, where CUDA runs, ``cuda``: tensors, numbers and lists of
them, which ``torch.load(..., weights_only=True)`` reads."""


def capture_random_state() -> RandomState:
    """Return the states of Python's, NumPy's and torch's generators, the present GPU's included.

    NumPy's is the global one, which data pipelines draw from; generators of one's own are not
    known here.
    """
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, position, has_gauss, cached = legacy
    state: RandomState = {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [
            str(kind),
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: RandomState) -> None:
    """Put the generators where :func:`capture_random_state` found them.

    Args:
        state: What it returned; its tensors may lie on any device.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def random_states_of_all_ranks(own: RandomState) -> list[RandomState]:
    """Return every rank's state, in the order of the ranks; all ranks have to call this."""
    return list(all_gather_object(own))
