"""Loads a config, which executes it, and builds what it names, without a word on the way."""

from __future__ import annotations

import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

EXTENSION = "mmcv._ext"
LONGEST = 200
"""Characters of somebody else's error that a line of ours holds."""


def load_config(
    config: str | Path, options: Mapping[str, Any] | None = None
) -> tuple[Config, tuple[str, ...]]:
    """Load a config file and apply overrides to it. This executes the file.

    Args:
        config: A config file, old- or new-style, or ``package::path``.
        options: Overrides by dotted name.

    Returns:
        The config, and in words what went without: custom imports that failed.

    Raises:
        ValueError: It does not exist or does not load.
    """
    path = str(config)
    if "::" in path:
        path = _packaged(path)
    if Path(path).is_dir():
        raise ValueError(f"{config} is a folder: give a config file in it")
    if not Path(path).is_file():
        raise ValueError(f"config {config} does not exist")
    try:
        with quiet(), importable_mmcv():
            cfg, notes = _load(path)
            cfg.merge_from_dict(dict(options or {}))
    except (Exception, SystemExit) as error:  # a config is Python: anything can go wrong in it
        raise ValueError(f"config {config} does not load: {in_a_line(error)}") from error
    return cfg, notes


def _load(path: str) -> tuple[Config, tuple[str, ...]]:
    try:
        return Config.fromfile(path), ()
    except ImportError as error:
        cfg = Config.fromfile(path, import_custom_modules=False)
        return cfg, (f"read without its custom imports, which fail: {in_a_line(error)}",)


def _packaged(name: str) -> str:
    package, _, inside = name.partition("::")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"config {name}: no package {package} is installed")
    return str(Path(spec.submodule_search_locations[0]) / ".mim" / "configs" / inside)


def in_a_line(error: BaseException) -> str:
    """Return an error in one line, with its type, cut off where it goes on and on."""
    line = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} …"


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what strangers' code prints, logs and warns of."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(level)


@contextmanager
def importable_mmcv() -> Iterator[None]:
    """Let mmcv's and mmdet's modules be imported where mmcv has no compiled operators.

    A model is only built here, and run on tensors without content, for which no operator is
    needed. Compiled operators, or others in their place, stay; so do those that come later:
    what was imported meanwhile asks for them whenever one is called.
    """
    placeholder = None
    if EXTENSION not in sys.modules and find_spec("mmcv") is not None:
        try:
            importlib.import_module(EXTENSION)
        except ImportError:
            placeholder = module_from_spec(ModuleSpec(EXTENSION, loader=None, origin="smd_hooks"))
            vars(placeholder)["__getattr__"] = _operator
            sys.modules[EXTENSION] = placeholder
    try:
        yield
    finally:
        if placeholder is not None:
            sys.modules.pop(EXTENSION, None)


def _operator(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def whoever_is_there(*args: Any, **kwargs: Any) -> Any:
        operators = sys.modules.get(EXTENSION)
        if operators is None or vars(operators).get("__getattr__") is _operator:
            raise RuntimeError(f"mmcv op '{name}' needs a compiled mmcv, and there is none")
        return getattr(operators, name)(*args, **kwargs)

    return whoever_is_there
