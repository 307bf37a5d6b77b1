"""Loads configs and tells in what they differ."""

from __future__ import annotations

from functools import cache
from typing import Any

from mmengine.config import Config

from tests.conftest import ROOT

CONFIGS = ROOT / "configs"


@cache
def load(name: str) -> Config:
    """Read ``configs/<name>.py``; not to be changed, for all get the same."""
    return Config.fromfile(CONFIGS / f"{name}.py", import_custom_modules=False)


def differing(one: Any, other: Any, path: str = "") -> set[str]:
    """Name the settings in which two configs differ."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return set() if one == other else {path}
    missing = object()
    found = [
        differing(one.get(key, missing), other.get(key, missing), f"{path}.{key}".lstrip("."))
        for key in {*one, *other}
    ]
    return set().union(*found)
