from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from benchmarks.launch import preflight
from benchmarks.launch.command import build_runner
from benchmarks.pipelines import mmcv_ops
from benchmarks.pipelines.demo_data.digits import write_digits
from benchmarks.pipelines.demo_data.scenes import write_scenes
from benchmarks.replicas import embedded_target, time_scale
from tests.conftest import ROOT

mmcv_ops.install()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_digits(root)
    write_scenes(root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("imagenet/resnet50_goyal-rescaled_8xb32-90e", "accuracy/top1"),
        ("imagenet/resnet50_lionar_8xb32-90e", "accuracy/top1"),
        ("coco/mask-rcnn_r50_fpn_syncbn-scratch-rescaled_4x_coco", "coco/segm_mAP"),
        ("coco/faster-rcnn_r50_fpn_1x_coco", "coco/bbox_mAP"),
        ("coco/retinanet_r50_fpn_1x_coco", "coco/bbox_mAP"),
    ],
)
def test_it_trains_and_validates(data: Path, tmp_path: Path, name: str, metric: str) -> None:
    original = Config.fromfile(ROOT / "configs" / f"{name}.py")
    task = "detection" if name.startswith("coco") else "classification"
    [replica] = time_scale({"run": original}, embedded_target(task)).values()
    path = tmp_path / "replica.py"
    replica.config.dump(path)
    path.write_text(path.read_text().replace("data/demo", str(data)))
    cfg = Config.fromfile(path)
    cfg.work_dir, cfg.launcher = str(tmp_path / "run"), "none"
    cfg.train_cfg.max_iters = 2
    if "RetinaNet" in cfg.model.type:  # after two steps it is sure of nothing
        cfg.model.test_cfg.score_thr = 0.0
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        preflight.check(cfg)
        runner = build_runner(cfg)
        runner.train()
    assert runner.iter == 2
    assert f"val/{metric}" in runner.message_hub.log_scalars
