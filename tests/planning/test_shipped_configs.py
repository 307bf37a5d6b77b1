"""Every config that mmdet ships gets a forecast, or a line that says why it does not."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest

from benchmarks.forecast_survey import Row, config_files, shipped_configs, survey
from benchmarks.pipelines import mmcv_ops

mmcv_ops.install()
FOLDER = shipped_configs()
pytestmark = pytest.mark.skipif(FOLDER is None, reason="no mmdet with its configs is installed")
SAMPLED = 12
"""Configs in the fast test, spread over the folders' names."""


def of(files: list[Path]) -> list[Row]:
    assert FOLDER is not None
    return list(survey(files, FOLDER))


def all_files() -> list[Path]:
    assert FOLDER is not None
    return config_files(FOLDER)


def check_rows(rows: list[Row]) -> None:
    """What must hold of each."""
    for row in rows:
        assert "\n" not in row.unreadable
        assert row.unreadable or row.verdict in ("some", "none", "unknown"), row
        assert row.unreadable or row.result, row


def test_a_sample_across_families() -> None:
    by_family: dict[str, Path] = {}
    for file in all_files():
        by_family.setdefault(file.parent.name, file)
    families = sorted(by_family)
    rows = of([by_family[name] for name in families[:: len(families) // SAMPLED]])
    check_rows(rows)
    assert sum(not row.unreadable for row in rows) >= 0.85 * len(rows)


def test_known_verdicts() -> None:
    assert FOLDER is not None
    known = {
        "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": ("none", ""),
        "retinanet/retinanet_r50_fpn_1x_coco.py": ("none", ""),
        "scratch/mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py": ("some", "69/77"),
        "yolox/yolox_s_8xb8-300e_coco.py": ("some", "74/80"),
        "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py": ("none", ""),
        "detr/detr_r50_8xb2-150e_coco.py": ("unknown", ""),
        # named in no config: this head has group norms by default
        "atss/atss_r50_fpn_1x_coco.py": ("some", "8/72"),
    }
    for row in of([FOLDER / name for name in known]):
        verdict, counts = known[row.config]
        assert row.verdict == verdict, row
        assert counts in row.result
    frozen = of([FOLDER / "retinanet/retinanet_r50_fpn_1x_coco.py"])[0].result
    assert frozen == "frozen, no norm, norms in eval mode"


@pytest.mark.slow
def test_every_config() -> None:
    rows = of(all_files())
    check_rows(rows)
    read = [row for row in rows if not row.unreadable]
    assert len(read) >= 795
    # fewer than have norm_eval and name no norm in neck and heads: some heads have one by default
    verdicts = collections.Counter(row.verdict for row in read)
    assert verdicts["none"] >= 390
    assert verdicts["some"] >= 280
    optimizers = collections.Counter(row.optimizer for row in read)
    assert optimizers["SGD"] >= 662
    assert optimizers["AdamW"] >= 133
