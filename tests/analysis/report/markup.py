"""Reads a page as a browser would, and lists what in it could run or load anything."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

LOADING = {"src", "href", "srcset", "data", "action", "poster", "formaction", "background"}


class Markup(HTMLParser):
    """Tags, attributes, texts and scripts of a page.

    Attributes:
        tags: All start tags.
        scripts: Contents of executable scripts.
        data: Parsed contents of JSON scripts, by id.
        loads: Attributes that make a browser load something.
        handlers: Attributes that run code.
        texts: What is shown, piece by piece.
        meta: Contents of meta tags, by http-equiv or name.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.data: dict[str, Any] = {}
        self.loads: list[tuple[str, str]] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.meta: dict[str, str] = {}
        self._inside: dict[str, str | None] | None = None
        self._parts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.loads += [(name, value or "") for name, value in attrs if name in LOADING]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag == "meta":
            key = named.get("http-equiv") or named.get("name") or "charset"
            self.meta[key] = named.get("content") or ""
        if tag in ("script", "style"):
            self._inside, self._parts = named, []

    def handle_data(self, data: str) -> None:
        (self.texts if self._inside is None else self._parts).append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._inside is not None:
            content = "".join(self._parts)
            if self._inside.get("type") == "application/json":
                self.data[str(self._inside["id"])] = json.loads(content)
            else:
                self.scripts.append(content)
        if tag in ("script", "style"):
            self._inside = None


def read_markup(path: Path) -> Markup:
    return Markup(path.read_text("utf-8"))
