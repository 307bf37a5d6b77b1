"""Kernels compiled for a GPU that need not be here."""

from __future__ import annotations

from typing import Any

import pytest


def ptx(kernel: Any, capability: int, fused: bool = False, **constants: Any) -> str:
    """Compile a kernel for a GPU that need not be here, by ptxas too; return its PTX."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    integers = ("tiles", "addresses", "split")
    signature = {
        name: "constexpr" if name in constants else "*i64" if name in integers else "*fp64"
        for name in kernel.arg_names
    }
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    try:
        compiled = triton.compile(
            ASTSource(fn=kernel, signature=signature, constexprs=places),
            target=GPUTarget("cuda", capability, 32),
            options={"enable_fp_fusion": fused},
        )
    except RuntimeError as error:
        if "ptxas" in str(error) and "Cannot find" in str(error):
            pytest.skip("needs ptxas")
        raise
    assert compiled.asm["cubin"]
    return compiled.asm["ptx"]
