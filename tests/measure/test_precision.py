from __future__ import annotations

import pytest
import torch

from smd_hooks.measure.precision import precision_warning, rounding_angle


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
