"""The benchmark suite: run from a checkout, never installed with the wheel."""
