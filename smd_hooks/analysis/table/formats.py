"""Tables as text, and as files.

What is shown came from other people's files: in each format, whatever would be taken for
markup or a command is escaped.
"""

from __future__ import annotations

import html
import math
import re
import shutil
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from ...records.plain_text import one_line
from ...records.whole_files import check_place, whole_file

_FORMULA = ("=", "+", "-", "@")
# a star or underscore that could begin emphasis; "Δ* is" cannot
_MARKDOWN = re.compile(r"[\\`\[\]<>&|~$]|\*(?!\s|$)|(?<!\w)_|_(?!\w)")
_TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    "[": "{[}",  # after the end of a row, TeX would take it for an option
    "*": "{*}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "²": "$^2$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "√": r"$\surd$",
    "‖": r"$\|$",
    "…": r"\dots{}",
    "–": "--",
    "’": "'",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "η": r"$\eta$",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
}
_STYLE = (
    ":root{color-scheme:light dark}body{font:14px system-ui,sans-serif}"
    "table{border-collapse:collapse}th,td{padding:.2em .6em;text-align:left;"
    "border-bottom:1px solid #8886}td{font-variant-numeric:tabular-nums}"
)


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as text: four significant digits, empty where nothing is known.

    Columns ``x_mean`` and ``x_std`` become one, ``x``: mean ± standard deviation, to two
    digits of the latter; so do ``difference`` and ``standard_error``.
    """
    shown: dict[Hashable, Any] = {}
    for name in table.columns:
        stem, spread = _pair(str(name))
        if spread in table:
            shown[stem] = [_show_pair(*p) for p in zip(table[name], table[spread], strict=True)]
        elif not _is_spread(str(name), table):
            shown[name] = [_show(value) for value in table[name]]
    return pd.DataFrame(shown, index=table.index, dtype=object)


def render_terminal(table: pd.DataFrame, width: int | None = None) -> str:
    """Lay the table out for a terminal, wrapped into blocks that repeat the first column."""
    text = format_table(table)
    key = text.columns[0]
    text = text.loc[:, [c == key or bool((text[c] != "").any()) for c in text.columns]]
    width = width or shutil.get_terminal_size((120, 24)).columns
    with pd.option_context("display.max_colwidth", None):
        return text.set_index(key).rename_axis(None).to_string(line_width=width)


def check_output(path: Path) -> None:
    """Refuse, before any work is done, what a table could not be written to.

    Raises:
        ValueError: The suffix is not csv, md, tex, html or parquet.
        OSError: The folder is not there, or the file is a folder, or may not be written.
    """
    if path.suffix.lower() not in (*_TEXT, ".parquet"):
        known = ", ".join([*_TEXT, ".parquet"])
        raise ValueError(f"{path}: '{path.suffix}' is no table format; use one of {known}")
    check_place(path)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write the table in the format that the suffix names, whole or not at all.

    In csv, text that a spreadsheet would take for a formula (it begins with =, +, - or @)
    gets an apostrophe in front.

    Raises:
        ValueError: The suffix is not csv, md, tex, html or parquet.
        OSError: The file cannot be written; one that was there is as it was.
    """
    check_output(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with whole_file(path, "wb") as file:
            table.map(_one_line).to_parquet(file, index=False)
        return
    text = _TEXT[suffix](table)
    with whole_file(path) as file:
        file.write(text)


def _show(value: Any) -> str:
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and 1 <= abs(value) < 2**53 else f"{value:.4g}"
    return one_line(value)


def _show_pair(mean: float, spread: float) -> str:
    if pd.isna(mean) or pd.isna(spread) or math.isinf(spread):
        return _show(float(mean))
    if not spread:
        return f"{_show(float(mean))} ± 0"
    digits = 1 - math.floor(math.log10(spread))
    if not 0 <= digits <= 6:
        return f"{mean:.4g} ± {spread:.2g}"
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def _pair(name: str) -> tuple[str, str]:
    """What a column of means is called with its spread, and how that one is called."""
    if name == "difference":
        return name, "standard_error"
    stem = name.removesuffix("_mean")
    return stem, "" if stem == name else f"{stem}_std"


def _is_spread(name: str, table: pd.DataFrame) -> bool:
    if name == "standard_error":
        return "difference" in table
    return name.endswith("_std") and f"{name.removesuffix('_std')}_mean" in table


def _one_line(value: Any) -> Any:
    return one_line(value) if isinstance(value, str) else value


def _csv(table: pd.DataFrame) -> str:
    def harmless(value: Any) -> Any:
        text = _one_line(value)
        return f"'{text}" if isinstance(text, str) and text.startswith(_FORMULA) else text

    return table.map(harmless).rename(columns=harmless).to_csv(index=False)


def _markdown(table: pd.DataFrame) -> str:
    text = format_table(table)
    rows = [list(text.columns), *text.to_numpy().tolist()]
    lines = [[_MARKDOWN.sub(r"\\\g<0>", str(cell)) for cell in row] for row in rows]
    lines.insert(1, ["---"] * text.shape[1])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _tex(table: pd.DataFrame) -> str:
    text = format_table(table)
    rows = [list(text.columns), *text.to_numpy().tolist()]
    lines = [" & ".join(map(_tex_text, row)) + r" \\" for row in rows]
    body = "\n".join([r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"])
    return f"\\begin{{tabular}}{{{'l' * text.shape[1]}}}\n{body}\n\\end{{tabular}}\n"


def _tex_text(cell: object) -> str:
    """Escape a cell; signs that a plain TeX does not know are told by their number."""
    return "".join(
        _TEX.get(c) or (c if _known_to_tex(c) else f"{{[}}U+{ord(c):04X}]") for c in str(cell)
    )


def _known_to_tex(c: str) -> bool:
    return " " <= c <= "~" or ("À" <= c <= "ÿ" and c.isalpha())


def _html(table: pd.DataFrame) -> str:
    text = format_table(table)
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in text.columns)
    rows = (
        "".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in text.to_numpy().tolist()
    )
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Runs</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<table>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</body>\n</html>\n"
    )


_TEXT: dict[str, Callable[[pd.DataFrame], str]] = {
    ".csv": _csv,
    ".md": _markdown,
    ".tex": _tex,
    ".html": _html,
}
