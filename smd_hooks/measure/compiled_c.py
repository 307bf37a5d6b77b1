"""C beside Python: compiled when first needed, shared out over torch's threads."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch

# Loops vectorize where the source says that a sum may be reordered (omp simd). Everything
# else is IEEE arithmetic as it stands there: no fused multiply-adds, which turn a sum that
# cancels into its rounding error, and nothing that changes how the process rounds tiny numbers.
FLAGS = ("-O3", "-fopenmp-simd", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")

PIECE = 1 << 18
"""Elements that a thread takes at a time."""


def compiled(source: Path) -> ctypes.CDLL | None:
    """Compile a C file for this processor and load it.

    Returns:
        The library, or None where there is no working compiler (``$CC``, cc or gcc).
    """
    for native in (("-march=native",), ()):
        try:
            with tempfile.TemporaryDirectory() as folder:
                library = Path(folder) / f"{source.stem}.so"
                command = [*_compiler(), *FLAGS, *native, "-shared", "-fPIC", str(source)]
                command += ["-o", str(library), "-lm"]
                subprocess.run(command, check=True, capture_output=True, timeout=60)
                return ctypes.CDLL(str(library))
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _compiler() -> list[str]:
    found = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not found:
        raise OSError("no C compiler")
    return shlex.split(found)


def address(array: np.ndarray) -> ctypes.c_void_p:
    """Return where an array's elements lie."""
    return ctypes.c_void_p(array.ctypes.data)


def share_out(work: Callable[[slice], None], elements: np.ndarray) -> None:
    """Do pieces of work on torch's number of threads, about the same elements each.

    Args:
        work: Does the pieces of a slice; must not hold the interpreter's lock for long.
        elements: Elements of each piece, in their order.
    """
    ends = elements.cumsum()
    total = ends[-1] if len(ends) else 0
    threads = torch.get_num_threads() if total > PIECE else 1
    cuts = np.searchsorted(ends, np.linspace(0, total, threads + 1)[1:-1])
    shares = [slice(*ends) for ends in zip([0, *cuts], [*cuts, len(elements)], strict=True)]
    others = [_pool(threads).submit(work, share) for share in shares[1:]]
    work(shares[0])
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, "smd_hooks")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
