from __future__ import annotations

import pytest
import torch
from torch import nn

from smd_hooks.measure import ScaleInvarianceObserver
from smd_hooks.measure.invariance import BATCHES
from smd_hooks.measure.precision import precision_warning, rounding_angle

from .observing import bounded


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounding_turns_a_gaussian_weight_by_this_angle(dtype: torch.dtype) -> None:
    w = torch.randn(1_000_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rounded = w.to(dtype).double()
    angle = float((w / w.norm() - rounded / rounded.norm()).norm())
    assert rounding_angle(dtype) == pytest.approx(angle, rel=0.01)


def test_only_low_precision_is_warned_of() -> None:
    weights = [torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bfloat16)]
    assert precision_warning(["a", "b"], [weights[0], weights[0].double()]) is None
    warning = precision_warning(["a", "b"], weights)
    assert warning is not None
    assert warning.startswith("1 of 2 weights (b, …) are bfloat16")
    assert "1.7e-03 radians" in warning


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_watching_leaves_weights_of_any_precision_alone(kind: torch.dtype) -> None:
    trained = []
    for is_watched in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)).to(kind)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        observer = ScaleInvarianceObserver(model, optimizer) if is_watched else None
        for _ in range(BATCHES):
            optimizer.zero_grad()
            bounded(model(torch.randn(2, 4, 6, 6, dtype=kind))).backward()
            optimizer.step()
        assert observer is None or observer.done is True
        trained.append([parameter.detach() for parameter in model.parameters()])
    assert all(map(torch.equal, *trained))
