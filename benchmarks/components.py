"""What a config names: classes by short name, scoped name, or (new-style) themselves."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.registry import Registry

from benchmarks.errors import UsageError

OF_THE_REGISTRY = ("type", "priority", "_scope_")
"""Keys of a component's config that MMEngine takes out before it calls the class."""


def type_name(config: Mapping[str, Any]) -> str:
    """Return the bare class name of a config's ``type``."""
    kind = config.get("type")
    return kind.__name__ if inspect.isclass(kind) else str(kind).rpartition(".")[2]


def check_component(config: Mapping[str, Any], registry: Registry, what: str) -> type | None:
    """Check that a component exists and knows its options, without building it.

    Args:
        config: ``dict(type=..., ...)``.
        registry: Where it is looked up, in the scope that is current.
        what: What it is called in the message, such as ``hook``.

    Returns:
        Its class; None if it is a function or the like, which is left to speak for itself.

    Raises:
        UsageError: It is not registered, or an option is unknown (for classes that take any
            option: looks like a misspelt one).
    """
    kind = config.get("type")
    found = kind if inspect.isclass(kind) else registry.get(str(kind))
    if found is None:
        raise UsageError(
            f"{what} '{kind}' is not registered{suggest(str(kind), registry.module_dict)}; name "
            "the module that defines it in custom_imports"
        )
    if not inspect.isclass(found):
        return None
    named, takes_any = _options(found)
    for option in config:
        if option in OF_THE_REGISTRY or option in named:
            continue
        alike = suggest(option, named)
        if alike or not takes_any:
            raise UsageError(
                f"{found.__name__}: unknown option '{option}'{alike}; "
                f"its options are: {', '.join(named) or 'none'}"
            )
    return found


def _options(component: type) -> tuple[list[str], bool]:
    """Names of a class's options, and whether it takes any other as well.

    A class that hands ``**kwargs`` on takes what its parent takes.
    """
    named: list[str] = []
    for owner in component.__mro__[:-1]:
        if "__init__" not in vars(owner):
            continue
        parameters = list(inspect.signature(owner).parameters.values())
        named += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return list(dict.fromkeys(named)), False
    return list(dict.fromkeys(named)), bool(named)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` if something known is spelt much like it."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.8)
    return f" (did you mean '{close[0]}'?)" if close else ""
