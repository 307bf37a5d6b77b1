"""What a config alone says of norms, for a model that cannot be built here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..analysis.forecast.plan import Layers


def layers_by_config(model: Any, why: str) -> Layers:
    """Say which norms a model's config names; single layers are not known.

    Args:
        model: ``model`` of a config, or None.
        why: Why it could not be built, in words.
    """
    kinds = sorted({str(n.get("type")) for key, n in _settings(model) if key == "norm_cfg" and n})
    told = f"norms named in it: {', '.join(kinds)}" if kinds else "it names no norms"
    frozen = [v for key, v in _settings(model) if key == "frozen_stages" and isinstance(v, int)]
    if any(v >= 0 for v in frozen):
        told += f"; frozen_stages={max(frozen)}"
    if any(key == "norm_eval" and v for key, v in _settings(model)):
        told += "; norm_eval=True"
    return Layers(note=f"{why}: layers are judged from the config alone ({told})")


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key in ("norm_cfg", "frozen_stages", "norm_eval"):
                is_norm = key != "norm_cfg" or isinstance(value, Mapping)
                yield from [(key, value)] if is_norm else []
            yield from _settings(value)
    elif isinstance(config, list | tuple):
        for item in config:
            yield from _settings(item)
