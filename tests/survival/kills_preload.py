"""Imports what every launch needs, once, in the process that launches are forked from."""

import os
from importlib import import_module

os.environ["OMP_NUM_THREADS"] = "1"

for name in (
    "benchmarks.__main__",
    "benchmarks.pipelines.classification",
    "benchmarks.pipelines.detection",  # readies mmcv before mmdet is imported
    "mmdet.datasets",
    "mmdet.engine",
    "mmdet.evaluation",
    "mmdet.models",
    "mmdet.visualization",
    "smd_hooks",
):
    import_module(name)
