"""``python -m benchmarks speed train``: where the time of a whole training step goes."""

from .command import add_parser

__all__ = ["add_parser"]
