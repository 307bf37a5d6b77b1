"""From text to tokens and back: characters, or GPT-2's byte pairs through tiktoken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from benchmarks.errors import UsageError
from benchmarks.pipelines.language.token_files import LARGEST_VOCABULARY, Meta, Tokens

ENCODINGS = ("characters", "gpt2")
_TO_LAST_WORD_END = re.compile(r"(?s:.*)\S(?=[ \n])")


class Encoding(Protocol):
    """A way to write text as tokens."""

    @property
    def meta(self) -> Meta:
        """What its tokens mean, for ``meta.json``."""

    def encode(self, text: str) -> Tokens:
        """Return the text's tokens, shape (tokens,)."""

    def decode(self, tokens: Tokens) -> str:
        """Return the text of tokens."""


class Characters:
    """Every character is a token: its place in the sorted alphabet.

    Args:
        alphabet: all characters that there are.

    Raises:
        UsageError: There are more than 16 bits can number.
    """

    def __init__(self, alphabet: Iterable[str]) -> None:
        self.alphabet = "".join(sorted(set(alphabet)))
        if len(self.alphabet) > LARGEST_VOCABULARY:
            raise UsageError(
                f"the text has {len(self.alphabet):,} different characters, more than the "
                f"{LARGEST_VOCABULARY:,} tokens of 16 bits: use --tokens gpt2"
            )
        self._codes = _code_points(self.alphabet)
        self._tokens = np.zeros(int(self._codes.max(initial=0)) + 1, dtype=np.uint16)
        self._tokens[self._codes] = np.arange(len(self.alphabet))

    @property
    def meta(self) -> Meta:
        """The alphabet."""
        return Meta("characters", len(self.alphabet), self.alphabet)

    def encode(self, text: str) -> Tokens:
        """Return one token per character, shape (len(text),); all must be in the alphabet."""
        return self._tokens[_code_points(text)]

    def decode(self, tokens: Tokens) -> str:
        """Return one character per token."""
        return self._codes[tokens].tobytes().decode("utf-32-le")


class Gpt2:
    """GPT-2's byte-pair encoding, by tiktoken, which downloads its vocabulary once.

    Raises:
        UsageError: tiktoken is not installed, or cannot get the vocabulary.
    """

    def __init__(self) -> None:
        try:
            tiktoken: Any = import_module("tiktoken")
        except ImportError as error:
            raise UsageError(
                "GPT-2's tokens need tiktoken, which is not installed: pip install tiktoken"
            ) from error
        try:
            self._pairs = tiktoken.get_encoding("gpt2")
        except Exception as error:  # of requests, of its proxies, or of the file system
            line = " ".join(str(error).split())
            raise UsageError(
                "tiktoken cannot download GPT-2's vocabulary, which it does once: try where there "
                f"is network, or set TIKTOKEN_CACHE_DIR to a folder that has it ({line[:200]})"
            ) from error

    @property
    def meta(self) -> Meta:
        """Which encoding it is, and how many tokens it has."""
        return Meta("gpt2", self._pairs.n_vocab)

    @property
    def end_of_text(self) -> int:
        """The token that ends a document."""
        return int(self._pairs.eot_token)

    def encode(self, text: str) -> Tokens:
        """Return the text's tokens; what looks like a special token is text."""
        return np.asarray(self._pairs.encode_ordinary(text), dtype=np.uint16)

    def decode(self, tokens: Tokens) -> str:
        """Return the text of tokens; bytes that are no whole character become U+FFFD."""
        return str(self._pairs.decode(tokens.tolist()))


def encoding_of(meta: Meta) -> Encoding:
    """Return the encoding that a folder's ``meta.json`` names.

    Raises:
        UsageError: It is none of ours, or cannot be had.
    """
    if meta.encoding == "characters":
        return Characters(meta.characters)
    if meta.encoding == "gpt2":
        return Gpt2()
    raise UsageError(f"encoding '{meta.encoding}' is none of {', '.join(ENCODINGS)}")


def cut_at_word_ends(chunks: Iterable[str]) -> Iterator[str]:
    """Cut a text anew, so that each piece by itself is encoded as within the whole.

    GPT-2 pairs bytes within words; a word may begin with a space, but no word reaches over its
    end into white space. So a cut there, before a space or a line feed, changes no token. Without
    any of these two, a text is one piece.

    Args:
        chunks: A text, cut anywhere.

    Yields:
        The same text in pieces of about the same size, none empty.
    """
    rest = ""
    for chunk in chunks:
        rest += chunk
        if found := _TO_LAST_WORD_END.match(rest):
            yield found.group()
            rest = rest[found.end() :]
    if rest:
        yield rest


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
