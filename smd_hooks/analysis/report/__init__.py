"""One HTML file to look at runs in."""

from .page import write_report

__all__ = ["write_report"]
