"""Detection: mmdet through its own base configs.

Importing this package (``custom_imports`` in the configs does) readies mmcv's operators,
which has to happen before mmdet is imported.
"""

from benchmarks.pipelines.mmcv_ops import install

install()
