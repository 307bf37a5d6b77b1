"""``python -m benchmarks sweep SUITE``: the runs of a suite, and what they show."""

from .command import add_parser

__all__ = ["add_parser"]
