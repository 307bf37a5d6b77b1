from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_hooks.measure.tiles import COLUMNS, addresses, cut

SHAPES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 300)), min_size=1, max_size=6)
"""Units of each tensor, and elements of each unit."""


@settings(deadline=None, max_examples=100)
@given(SHAPES, st.integers(1, 300), st.integers(1, 50))
def test_tiles_cover_every_element_once(
    shapes: list[tuple[int, int]], elements: int, most_units: int
) -> None:
    counts, lengths = zip(*shapes, strict=True)
    tiles = cut(counts, lengths, elements, most_units)
    seen = [np.zeros(count * length, int) for count, length in shapes]
    rows_of_units: dict[int, list[int]] = {}
    firsts = np.cumsum([0, *counts])
    for row in tiles.table.tolist():
        tile = dict(zip(COLUMNS, row, strict=True))
        assert tile["units"] <= most_units
        assert tile["units"] * tile["length"] <= max(elements, tile["length"])
        assert tile["length"] <= elements
        for k in range(tile["units"]):
            start = tile["start"] + k * tile["length"]
            seen[tile["tensor"]][start : start + tile["length"]] += 1
            unit = tile["unit"] + k
            rows_of_units.setdefault(unit, []).append(tile["row"] + k)
            within = start - (unit - firsts[tile["tensor"]]) * lengths[tile["tensor"]]
            assert 0 <= within <= max(0, lengths[tile["tensor"]] - tile["length"])
    assert all((number == 1).all() for number in seen)
    assert sorted(rows_of_units) == list(range(sum(counts)))
    split = {unit: list(range(first, last)) for unit, first, last in tiles.split.tolist()}
    assert rows_of_units == {unit: split.get(unit, [unit]) for unit in range(sum(counts))}
    assert tiles.rows == sum(counts) + sum(map(len, split.values()))


def test_what_is_not_there_lies_at_0() -> None:
    a, b, c = torch.zeros(3), torch.zeros(2), torch.zeros(1)
    assert addresses([[a, b], [c, None]]).tolist() == [
        [a.data_ptr(), c.data_ptr(), 0, 0],
        [b.data_ptr(), 0, 0, 0],
    ]
