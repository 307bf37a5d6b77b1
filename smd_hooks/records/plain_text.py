"""Text that comes from other people's files, made fit for a line of a terminal or a log."""

from __future__ import annotations

from typing import Any


def one_line(text: object, longest: int = 1000) -> str:
    r"""Return the text on one line, with what would steer a terminal or a reader escaped.

    Newlines, control characters, marks that turn the direction of writing, and bytes of a
    file name that are no text become ``\n``, ``\x1b``, ``\u202e``, ``\udcff``; what is longer
    than ``longest`` characters loses its middle.

    >>> one_line("a\x1b[2J\nb")
    'a\\x1b[2J\\nb'
    """
    line = str(text)
    if len(line) > longest:
        line = f"{line[: longest // 2]} … {line[-(longest // 2) :]}"
    if line.isprintable():
        return line
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line
    )


def in_one_line_each(content: Any) -> Any:
    """Return what was read of a JSON file with each string, and each key, made one line."""
    if isinstance(content, str):
        return one_line(content)
    if isinstance(content, list):
        return [in_one_line_each(item) for item in content]
    if isinstance(content, dict):
        return {one_line(key): in_one_line_each(value) for key, value in content.items()}
    return content
