"""What the table says of runs of other people's projects."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from smd_hooks import write_report
from smd_hooks.analysis import agreement_table, load_runs
from tests.analysis.work_dirs import launch

MMPRETRAIN = """
default_scope = 'mmpretrain'
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=50),
             head=dict(type='LinearClsHead', topk=(1, 5)))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.8, momentum=0.9, nesterov=True,
                                    weight_decay=5e-05))
train_dataloader = dict(batch_size=64, dataset=dict(type='ImageNet', data_root='data/imagenet'))
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
"""
MMSEG = """
default_scope = 'mmseg'
model = dict(type='EncoderDecoder', backbone=dict(type='mmseg.models.ResNetV1c', depth=101))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, weight_decay=0.0005))
train_dataloader = dict(batch_size=4, dataset=dict(type='CityscapesDataset',
                                                   data_root='data/cityscapes/'))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=40000, val_interval=4000)
"""
LAZY = """
default_scope = None
model = dict(type='mmdet.models.detectors.RetinaNet',
             backbone=dict(type='mmdet.models.backbones.ResNet', depth=50))
optim_wrapper = dict(type='mmengine.optim.OptimWrapper',
                     optimizer=dict(type='torch.optim.SGD', lr=0.01, weight_decay=0.0001))
train_dataloader = dict(batch_size=2, dataset=dict(type='ConcatDataset', datasets=[
    dict(type='CocoDataset', data_root='data/coco/'), dict(type='mmdet.datasets.LVISDataset')]))
train_cfg = dict(max_epochs=12)
"""


def row(folder: Path, config: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    launch(folder, "20260101_000000", lines, config=config)
    (found,) = agreement_table(load_runs(folder)).to_dict("records")
    return found


def train(step: int) -> dict[str, Any]:
    return {"lr": 0.1, "loss": 1.0, "iter": step, "step": step}


def test_mmpretrain(tmp_path: Path) -> None:
    found = row(
        tmp_path,
        MMPRETRAIN,
        [train(100), {"accuracy/top1": 76.5, "accuracy/top5": 93.1, "step": 100}],
    )
    wanted = {
        "status": "finished",
        "task": "classification",
        "dataset": "imagenet",
        "model": "ImageClassifier ResNet-50",
        "optimizer": "SGD(momentum=0.9, nesterov=True)",
        "accuracy/top1": 76.5,
        "verdict": "not measured",
    }
    assert {name: found[name] for name in wanted} == wanted


def test_mmseg(tmp_path: Path) -> None:
    lines = [train(50), {"aAcc": 95.0, "mIoU": 71.2, "mAcc": 80.0, "step": 4000}]
    found = row(tmp_path, MMSEG, lines)
    wanted = {
        "status": "unfinished",
        "task": "segmentation",
        "dataset": "cityscapes",
        "model": "EncoderDecoder ResNetV1c-101",
        "iters": 50,
    }
    assert {name: found[name] for name in wanted} == wanted
    history = load_runs(tmp_path)[0].scalars.history
    assert history[history["metric"] == "mIoU"]["value"].tolist() == [71.2]


def test_a_dumped_lazy_config(tmp_path: Path) -> None:
    found = row(tmp_path, LAZY, [train(50), {"coco/bbox_mAP": 0.365, "step": 12}])
    wanted = {
        "status": "finished",
        "task": "detection",
        "dataset": "coco + LVISDataset",
        "model": "RetinaNet ResNet-50",
        "optimizer": "SGD",
        "coco/bbox_mAP": 0.365,
    }
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.slow
def test_a_real_mmdet_run_without_our_hook(tmp_path: Path, shared_data: Path) -> None:
    from mmengine.runner import Runner

    from benchmarks.launch.command import add_parser, load_config
    from tests.configs.test_two_steps import CONFIGS, on_coco_format

    name = "retinanet_r50_fpn_1x_coco"
    options = on_coco_format(name, shared_data / "coco_small", "2017")
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    overrides = [f"{key}={value}" for key, value in options.items()]
    command = ["run", str(CONFIGS / "coco" / f"{name}.py"), "--work-dir", str(tmp_path)]
    config = load_config(parser.parse_args([*command, "--cfg-options", *overrides]))
    config.custom_hooks = []
    runner = Runner.from_cfg(config)
    runner.train()
    (run,) = load_runs(tmp_path)
    (found,) = agreement_table([run]).to_dict("records")
    assert found["coco/bbox_mAP"] == runner.message_hub.get_scalar("val/coco/bbox_mAP").current()
    wanted = {
        "status": "finished",
        "task": "detection",
        "dataset": "coco_small",
        "model": "RetinaNet ResNet-50",
        "optimizer": "SGD(momentum=0.9)",
        "lr": 0.01,
        "weight_decay": 0.0001,
        "batch_size": 2,
        "verdict": "not measured",
    }
    assert {name: found[name] for name in wanted} == wanted
    assert set(run.scalars.history["metric"]) >= {"coco/bbox_mAP", "coco/bbox_mAP_50"}
    assert json.dumps(found)  # plain values
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Not measured: its config needs custom_imports" in page
    assert "RetinaNet ResNet-50" in page
