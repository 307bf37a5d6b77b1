"""A warmup over a share of the steps, as MMEngine's Runner steps it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.optim.scheduler import LinearLR
from mmengine.registry import PARAM_SCHEDULERS

from benchmarks.pipelines.schedules import WarmupShareLR


def rates(steps: int, *schedulers: dict) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    built = [PARAM_SCHEDULERS.build(s, default_args=dict(optimizer=optimizer)) for s in schedulers]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        for scheduler in built:
            scheduler.step()
    return found


@settings(deadline=None)
@given(share=st.floats(0, 0.99), total=st.integers(1, 300), begin=st.integers(0, 20))
def test_it_rises_linearly_to_one_and_stays(share: float, total: int, begin: int) -> None:
    warmup = dict(type="WarmupShareLR", share=share, total=total, begin=begin)
    steps = round(share * total)
    expected = [
        2.0 if t < begin else 2.0 * min(1.0, (t - begin + 1) / max(1, steps)) for t in range(total)
    ]
    assert rates(total, warmup) == pytest.approx(expected, rel=1e-9)


def test_it_multiplies_what_others_set() -> None:
    """The trapezoid: a rise, a constant, and over the last half a line to 0."""
    down = dict(type="LinearLR", start_factor=1.0, end_factor=0.0, begin=10, end=21, by_epoch=False)
    found = rates(20, dict(type="WarmupShareLR", share=0.2, total=20), down)
    expected = [0.5, 1.0, 1.5, 2.0, *[2.0] * 6, *(2.0 * (1 - k / 10) for k in range(10))]
    assert found == pytest.approx(expected)


def test_control_mmengines_own_has_no_warmup_of_no_length() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    with pytest.raises(ValueError, match="end"):
        LinearLR(optimizer, start_factor=1.0, begin=0, end=0, by_epoch=False)
    assert rates(3, dict(type="WarmupShareLR", share=0.0, total=20)) == [2.0] * 3


@pytest.mark.parametrize("options", [{"share": 1.0}, {"share": -0.1}, {"by_epoch": True}])
def test_what_is_no_share_is_refused(options: dict) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    with pytest.raises(ValueError, match="WarmupShareLR"):
        WarmupShareLR(optimizer, **{"share": 0.1, "total": 10, **options})
