"""SMD Hooks: how fast each scale-invariant layer turns, and how fast it should.

Importing this package registers the hooks and optimizers with MMEngine where MMEngine is in
use; so does :class:`StepProbe` or an optimizer, for scripts that import MMEngine later. Reading
results needs neither MMEngine nor torch.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "StepProbe": "measure",
    "LionA": "optim",
    "LionAR": "optim",
    "RotationalAdamW": "optim",
    "RotationalLion": "optim",
    "RotationalSGD": "optim",
    "SMDHook": "hooks",
    "EquilibriumRescaleHook": "hooks",
    "RotationalUpdateHook": "hooks",
    "SNRCorrectionHook": "hooks",
    "agreement_table": "analysis",
    "forecast": "planning",
    "load_runs": "analysis",
    "write_report": "analysis.report",
}
__all__ = [
    "EquilibriumRescaleHook",
    "LionA",
    "LionAR",
    "RotationalAdamW",
    "RotationalLion",
    "RotationalSGD",
    "RotationalUpdateHook",
    "SMDHook",
    "SNRCorrectionHook",
    "StepProbe",
    "agreement_table",
    "forecast",
    "load_runs",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'smd_hooks' has no attribute {name!r}")
    if _HOME[name] in ("measure", "optim"):
        with suppress(ImportError):  # a broken MMEngine is none of a plain loop's business
            _register()
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def _register() -> None:
    if find_spec("mmengine") is not None:
        importlib.import_module(f"{__name__}.hooks")


if "mmengine" in sys.modules:  # we were named in a config's custom_imports
    _register()
