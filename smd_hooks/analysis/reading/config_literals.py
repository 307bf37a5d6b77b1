"""Reads a dumped MMEngine config without executing it.

A config is Python, and a run folder may come from anyone. What MMEngine dumps holds
only assignments of literals and ``dict(...)`` calls; anything else is left out.
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...records.foreign_files import MEBIBYTE, Unreadable, read_text
from ...records.plain_text import one_line

_MOST_BYTES = 4 * MEBIBYTE
_CONSTANTS = {"inf": math.inf, "nan": math.nan}  # as Python writes these numbers


class _NotLiteral(Exception):
    pass


@dataclass
class ConfigLiterals:
    """What a config file says in literals.

    Attributes:
        values: Its top-level assignments.
        left_out: Lines of statements that are something else.
    """

    values: dict[str, Any] = field(default_factory=dict)
    left_out: list[int] = field(default_factory=list)


def read_config(path: Path) -> ConfigLiterals:
    """Return the literal top-level assignments of a config file.

    Raises:
        Unreadable: It cannot be read, is no Python, or is larger or more deeply nested than
            any config is.
    """
    text = read_text(path, _MOST_BYTES)
    try:
        statements = ast.parse(text).body
        found = ConfigLiterals()
        for statement in statements:
            _take(statement, found)
    except SyntaxError as error:
        raise Unreadable(f"not readable as Python ({error.msg}, line {error.lineno})") from None
    except (ValueError, RecursionError, MemoryError) as error:  # the latter are its depth
        reason = str(error) or "too deeply nested"
        raise Unreadable(f"not readable as Python ({reason})") from None
    return found


def _take(statement: ast.stmt, found: ConfigLiterals) -> None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=node):
            try:
                found.values[name] = _value(node)
                return
            except (_NotLiteral, TypeError):  # or a dict whose keys are none
                pass
        case ast.Expr(value=ast.Constant(value=str())):  # a docstring
            return
    found.left_out.append(statement.lineno)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() as text):
            return one_line(text, 100_000)
        case ast.Constant(value=bool() | int() | float() | None as value):
            return value
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
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
