"""The copies in C; the sums in C are held to the reference in test_fused.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smd_hooks.measure import c_sums


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("large", [False, True])
def test_copies_are_equal(
    layout: torch.memory_format, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they go past the caches or not; where they lie does not matter."""
    monkeypatch.setattr(c_sums, "PAST_CACHES", 0 if large else 1 << 30)
    monkeypatch.setattr(c_sums, "PIECE", 1000)
    together = torch.randn(3_000)
    originals = [
        torch.randn(70, 5, 3, 3).to(memory_format=layout),
        together[1:2_500],  # at no multiple of 64 bytes
        torch.randn(0),
        torch.randn(1),
    ]
    copies = [torch.full_like(t, torch.nan) for t in originals[:1]]
    copies += [torch.full((2_520,), torch.nan)[9:2_508], torch.empty(0), torch.zeros(1)]
    beyond = copies[1]._base
    assert beyond is not None
    c_sums.copy_all(copies, originals)
    for copy, original in zip(copies, originals, strict=True):
        assert torch.equal(copy, original)
    assert beyond[:9].isnan().all()
    assert beyond[2_508:].isnan().all()


@pytest.mark.parametrize("originals", [torch.randn(6, 4).T, torch.randn(4, 6).double()])
def test_what_lies_otherwise_is_copied_by_torch(
    originals: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c_sums, "PAST_CACHES", 0)
    monkeypatch.setattr(c_sums, "_over_pieces", None)
    copy = torch.zeros(4, 6)
    c_sums.copy_all([copy], [originals])
    assert torch.equal(copy, originals.float())
