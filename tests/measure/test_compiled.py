"""The compiled pass equals the reference, and its absence costs only time."""

from __future__ import annotations

import shutil

import pytest
import torch

from smd_hooks.measure import compiled
from smd_hooks.measure.compiled import OFTEN, WORTH_COMPILING, StepSums
from smd_hooks.measure.geometry import step_sums


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_compiled_pass_equals_the_reference(dtype: torch.dtype) -> None:
    sums = StepSums(WORTH_COMPILING, interval=1)
    torch.manual_seed(0)
    with torch.no_grad():
        for shape in [(50_001,), (27,), (5, 1_000), (2_400_000,), (1,), (3, 7)]:
            tensors = list(torch.randn(4, *shape).to(dtype))
            tensors[1] = tensors[0] + (1e-4 * tensors[1]).to(dtype)
            for buffer in (tensors[3], None):
                got = sums(*tensors[:3], buffer)
                wanted = step_sums(*tensors[:3], buffer)
                assert got.dtype == torch.float64
                scale = torch.linalg.vector_norm(wanted, dim=-1, keepdim=True)
                assert ((got - wanted).abs() <= 1e-11 * scale).all(), (shape, got, wanted)
    assert sums.is_compiled  # it has not given up


def test_without_a_compiler_the_reference_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> object:
        raise RuntimeError("no compiler\nand many more lines")

    monkeypatch.setattr(compiled, "_compiled", broken)
    sums = StepSums(WORTH_COMPILING, interval=1)
    tensors = list(torch.randn(4, 9))
    with pytest.warns(UserWarning, match=r"without a compiled pass, slower \(no compiler\)"):
        first = sums(*tensors)
    assert torch.equal(first, step_sums(*tensors))
    assert torch.equal(sums(*tensors), first)


def test_small_or_rare_measurements_are_not_worth_compiling() -> None:
    assert StepSums(WORTH_COMPILING, OFTEN - 1).is_compiled
    assert not StepSums(WORTH_COMPILING - 1, 1).is_compiled
    assert not StepSums(WORTH_COMPILING, OFTEN).is_compiled
