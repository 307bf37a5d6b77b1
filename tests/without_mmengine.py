"""A pytest plugin: MMEngine cannot be imported (``pytest -p tests.without_mmengine``)."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any


class _Refuse(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in ("mmengine", "mmcv", "mmdet"):
            raise ImportError(f"{name} cannot be imported here")


assert "mmengine" not in sys.modules
sys.meta_path.insert(0, _Refuse())
