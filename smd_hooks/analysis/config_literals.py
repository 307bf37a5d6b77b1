"""Reads a dumped MMEngine config without executing it.

A config is Python, and a run folder may come from anyone. What MMEngine dumps holds
only assignments of literals and ``dict(...)`` calls; anything else is left out.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any


class _NotLiteral(Exception):
    pass


def read_config(path: Path) -> dict[str, Any]:
    """Return the literal top-level assignments of a config file.

    Raises:
        OSError: The file cannot be read.
        SyntaxError: It is not Python.
        UnicodeDecodeError: It is not text.
    """
    config: dict[str, Any] = {}
    for statement in ast.parse(path.read_text("utf-8"), filename=str(path)).body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    try:
                        config[target.id] = _value(statement.value)
                    except _NotLiteral:
                        continue
    return config


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_value(k): _value(v) for k, v in zip(keys, values, strict=True) if k}
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return {k.arg: _value(k.value) for k in keywords if k.arg}
        case ast.Call(func=ast.Name(id="dict"), args=[ast.Dict() as plain], keywords=[]):
            return _value(plain)  # with keys that are no names, as ".bn." is none
        case ast.Call(func=ast.Name(id="set"), args=[], keywords=[]):
            return set()
        case ast.List(elts=items) | ast.Set(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _value(operand)
            if isinstance(value, int | float):
                return -value
    raise _NotLiteral
