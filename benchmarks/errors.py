"""The one exception that the suite's commands turn into a line and exit code 2."""

from __future__ import annotations


class UsageError(Exception):
    """Unusable input, found before anything was built.

    The message is a single line that names what is wrong, where, and what to do.
    """
