"""The passes in Triton: interpreted and compiled anywhere, run where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smd_hooks.measure.device_tiles import SHAPES as TILES
from smd_hooks.optim.choose_passes import CheckedPasses, passes_for
from smd_hooks.optim.passes import Direction, TorchPasses

from ..measure.triton_compiled import ptx
from .batches import batch_of, magnitudes, stepped

triton = pytest.importorskip("triton", reason="needs Triton", exc_type=ImportError)

CHECKOUT = Path(__file__).parents[2]

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SHAPES = [(1, 50_000), (300, 27), (20, 600), (70, 1), (500, 64), (0, 4), (3, 0), (4, 8192)]


@pytest.mark.slow
def test_interpreted_the_kernels_equal_the_readable_form() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "tests.optim.triton_interpreted"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["13"]


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kind", list(Direction))
def test_the_kernels_compile_without_fused_multiply_adds(
    kind: Direction, capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from smd_hooks.measure.triton_kernels import DTYPES
    from smd_hooks.optim import triton_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for (units, elements), dtype in zip(TILES, DTYPES.values(), strict=True):
        tile = dict(KIND=int(kind), DTYPE=dtype, UNITS=units, ELEMENTS=elements)
        sums = dict(**tile, DECAYS=kind is Direction.MOMENTUM, NEEDED=True)
        made = [
            ptx(kernels.sum_tiles, capability, **sums),
            ptx(kernels.move_tiles, capability, **tile),
        ]
        assert all("mul.rn.f64" in text or "mul.f64" in text for text in made)
        assert not any("fma.rn.f64" in text for text in made)
    assert "fma.rn.f64" in ptx(kernels.sum_tiles, capability, fused=True, **sums)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("needed", [True, False])
def test_on_a_gpu_the_kernels_equal_the_readable_form(
    direction: Direction, dtype: torch.dtype, needed: bool
) -> None:
    from smd_hooks.optim.triton_passes import TritonPasses

    batch = batch_of(direction, SHAPES, decays=True, dtype=dtype, device="cuda")
    if direction is Direction.ADAM:
        batch.settings[:, 2] = 0.1
    weights, buffers, sums = stepped(TritonPasses(), batch, needed)
    wanted_weights, wanted_buffers, wanted_sums = stepped(TorchPasses(), batch, needed)
    for got, wanted in zip(buffers, wanted_buffers, strict=True):
        assert torch.equal(got, wanted)
    exact = direction is not Direction.ADAM
    for got, wanted in zip(weights, wanted_weights, strict=True):
        root = 0.0 if exact or not wanted.numel() else 1e-7 * float(wanted.abs().max())
        assert torch.allclose(got, wanted, rtol=0 if exact else torch.finfo(dtype).eps, atol=root)
    assert (sums is None) == (not needed)
    if sums is not None and wanted_sums is not None:
        bounds = (1e-12 if exact else 1.3e-7) * magnitudes(batch, wanted_sums)
        assert ((sums - wanted_sums).abs() <= bounds).all()


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("direction", list(Direction))
def test_on_a_gpu_the_kernels_are_chosen_and_nothing_waits(direction: Direction) -> None:
    from smd_hooks.optim.triton_passes import TritonPasses

    first, other = (batch_of(direction, shapes, device="cuda") for shapes in (SHAPES, SHAPES[::-1]))
    factors = torch.ones(len(first.units), 3, dtype=torch.float64, device="cuda")
    passes = passes_for(torch.float32, first.weights[0].device)
    assert isinstance(passes, CheckedPasses)
    passes.direction_sums(first)
    assert isinstance(passes._form(direction), TritonPasses)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in (first, first, other):
            passes.direction_sums(batch)
            passes.move(batch, factors)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("direction", list(Direction))
def test_a_captured_step_repeats(direction: Direction) -> None:
    from smd_hooks.optim.triton_passes import TritonPasses

    batch = batch_of(direction, SHAPES, device="cuda")
    factors = torch.full((len(batch.units), 3), 0.5, dtype=torch.float64, device="cuda")
    plain = batch_of(direction, SHAPES, device="cuda")
    passes, reference = TritonPasses(), TorchPasses()
    passes.direction_sums(batch)
    passes.move(batch, factors)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sums = passes.direction_sums(batch)
        passes.move(batch, factors)
    for _ in range(3):
        graph.replay()
    for _ in range(4):
        wanted = reference.direction_sums(plain)
        reference.move(plain, factors)
    assert sums is not None
    assert wanted is not None
    assert ((sums - wanted).abs() <= 1e-6 * magnitudes(plain, wanted)).all()
