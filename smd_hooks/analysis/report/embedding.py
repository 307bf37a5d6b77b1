"""Numbers and text of runs as JSON that can stand inside an HTML page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def rounded(values: Iterable[Any] | np.ndarray) -> list[float | None]:
    """Return numbers to four significant digits; None for what is NaN or infinite.

    >>> rounded([3.14159, 1234567, float("nan")])
    [3.142, 1235000.0, None]
    """
    floats = np.asarray(values, dtype=float).tolist()
    return [float(f"{x:.4g}") if math.isfinite(x) else None for x in floats]


def embed(data: Any) -> str:
    r"""Return JSON that no HTML parser ends early, whatever text it carries.

    It is ASCII, so that line separators and half characters of broken file names are escaped
    too, and has no ``<``, ``>`` or ``&``. What is NaN or infinite is null.

    >>> embed({"run": "</script>", "lr": float("inf")})
    '{"run":"\\u003c/script\\u003e","lr":null}'
    """
    finite = _with_nulls(data)
    text = json.dumps(finite, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    for character, escaped in _IN_SCRIPT.items():
        text = text.replace(character, escaped)
    return text


def _with_nulls(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _with_nulls(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_with_nulls(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
