"""How compiled passes over many tensors cut them into pieces of work, long and short alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

COLUMNS = ("tensor", "unit", "units", "start", "length", "row")


@dataclass(frozen=True)
class Tiles:
    """Pieces of work: a few whole units of one tensor each, or a part of a long one.

    Attributes:
        table: :data:`COLUMNS` of each tile, int64: the tensor, its first unit of all units,
            the number of units, the element of the tensor it starts at, the elements per
            unit, the row of its first unit's sums.
        rows: Rows of sums. A unit in one tile has the row of its own number; the parts of
            the others have theirs after these.
        split: Each unit in several tiles, with the first row of its parts and the row
            after the last, int64, shape (split units, 3).
    """

    table: np.ndarray
    rows: int
    split: np.ndarray


def cut(counts: Sequence[int], lengths: Sequence[int], elements: int, most_units: int) -> Tiles:
    """Cut units into tiles that neither threads nor anything else at run time has a part in.

    Args:
        counts: Units of each tensor.
        lengths: Elements of each unit of a tensor.
        elements: Of a tile at most, but for single units cut into tiles of so many.
        most_units: In a tile.
    """
    tiles, split = [np.empty((0, len(COLUMNS)), np.int64)], []
    unit, row = 0, sum(counts)
    for tensor, (count, length) in enumerate(zip(counts, lengths, strict=True)):
        if length > elements:
            starts = np.arange(0, length, elements)
            for i in range(count):
                rows = row + np.arange(len(starts))
                parts = np.minimum(length - starts, elements)
                tiles.append(_table(tensor, unit + i, 1, i * length + starts, parts, rows))
                split.append((unit + i, row, row + len(starts)))
                row += len(starts)
        else:
            units = min(most_units, elements // max(length, 1))
            first = np.arange(0, count, units)
            here = np.minimum(count - first, units)
            tiles.append(_table(tensor, unit + first, here, first * length, length, unit + first))
        unit += count
    return Tiles(np.concatenate(tiles), row, np.array(split, np.int64).reshape(-1, 3))


def _table(*columns: np.ndarray | int) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*columns), 1).astype(np.int64)


def addresses(lists: Sequence[Sequence[Tensor | None]]) -> np.ndarray:
    """Return where tensors lie, 0 for those that are not there.

    Args:
        lists: Up to four, of one tensor for each row; what is beyond them is 0.

    Returns:
        int64 of shape (rows, 4).
    """
    table = np.zeros((len(lists[0]), 4), np.int64)
    for column, tensors in enumerate(lists):
        table[:, column] = [0 if t is None else t.data_ptr() for t in tensors]
    return table
