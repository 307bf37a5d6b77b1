"""One training: the command, the checks before it, the Runner, and how it ends and goes on."""

from .command import add_parser

__all__ = ["add_parser"]
