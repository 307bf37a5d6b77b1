from tests.benchmarks.sweep.small import fake

__all__ = ["fake"]
