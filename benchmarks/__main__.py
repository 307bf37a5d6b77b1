"""``python -m benchmarks demo | run | sweep | prepare | speed | forecast-survey``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

# Two spinning OpenMP threads beside any other load cost a factor of ten (measured);
# waiting passively costs nothing. torch reads this once, when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks import demo, forecast_survey, launch, speed, sweep
from benchmarks.errors import UsageError
from benchmarks.pipelines.language import command as prepare


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0 (fine), 1 (a run failed), 2 (unusable input) or 130 (Ctrl-C)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (demo, launch, sweep, prepare, speed, forecast_survey):
        command.add_parser(commands)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
