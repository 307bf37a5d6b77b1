"""``smd-hooks``: read results off run folders, and forecast what a config will do."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from . import predict, report, table


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Warnings and errors are one line each on stderr.

    Returns:
        What the command returned; 2 for unusable input.
    """
    parser = argparse.ArgumentParser(prog="smd-hooks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (table, report, predict):
        command.add_parser(commands)
    args = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may know fewer signs than we use
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)  # not what libraries tell programmers
        warnings.showwarning = _show_warning
        try:
            code = int(args.run(args))
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # piped into head, which has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (OSError, ValueError) as error:
            _say("error", error)
            return 2


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say("warning", message)


def _say(kind: str, message: object) -> None:
    from ..records.plain_text import one_line

    print(f"{kind}: {one_line(message)}", file=sys.stderr)
