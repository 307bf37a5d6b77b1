"""``python -m smd_hooks.cli``, where no ``smd-hooks`` was installed."""

import sys

from . import main

if __name__ == "__main__":  # and not where a spawned process imports it
    sys.exit(main())
