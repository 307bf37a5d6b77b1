"""The pass in Triton: interpreted and compiled anywhere, run where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smd_hooks.measure import fused
from smd_hooks.measure.c_sums import Vectors
from smd_hooks.measure.device_tiles import SHAPES, DeviceTables
from smd_hooks.measure.fused import one_by_one

from .triton_compiled import ptx

CHECKOUT, CPU = Path(__file__).parents[2], torch.device("cpu")


@pytest.mark.slow
def test_interpreted_the_kernel_equals_the_reference() -> None:
    pytest.importorskip("triton", reason="needs Triton", exc_type=ImportError)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "tests.measure.triton_interpreted"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4"]


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_without_fused_multiply_adds(
    capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("triton", reason="needs Triton", exc_type=ImportError)
    from smd_hooks.measure import triton_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for (units, elements), dtype in zip(SHAPES, kernels.DTYPES.values(), strict=True):
        tile = dict(DTYPE=dtype, UNITS=units, ELEMENTS=elements)
        made = ptx(kernels.sum_steps, capability, **tile)
        assert "mul.rn.f64" in made or "mul.f64" in made
        assert "fma.rn.f64" not in made
    assert "fma.rn.f64" in ptx(kernels.sum_steps, capability, fused=True, **tile)
    assert "add.rn.f64" in ptx(kernels.add_parts, capability, WIDTH=6, PARTS=64)


def test_tables_are_made_once_and_forgotten_when_they_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("smd_hooks.measure.device_tiles.REMEMBERED", 2)
    tables = DeviceTables()
    first = tables.work((1, 3), (700, 27), CPU)
    assert tables.work([1, 3], [700, 27], CPU) is first
    assert first.rows == 4
    tables.work((2,), (5,), CPU)
    tables.work((4,), (5,), CPU)  # the third clears the others away
    assert tables.work((1, 3), (700, 27), CPU) is not first


Form = Callable[[Sequence[Vectors]], Tensor]


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (lambda steps: one_by_one(steps) * (1 + 1e-6), "gives other values"),
        (lambda steps: 1 / 0, "fails"),
    ],
)
def test_a_form_that_is_wrong_here_is_not_used(
    form: Form, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton_sums = pytest.importorskip("smd_hooks.measure.triton_sums", exc_type=ImportError)
    monkeypatch.setattr(triton_sums, "TritonSums", lambda: form)
    with pytest.warns(UserWarning, match=f"slower than it could be: the form in Triton {says}"):
        assert fused.load_triton.__wrapped__(torch.float32, CPU) is None
    monkeypatch.setattr(triton_sums, "TritonSums", lambda: one_by_one)
    assert fused.load_triton.__wrapped__(torch.float32, CPU) is one_by_one
