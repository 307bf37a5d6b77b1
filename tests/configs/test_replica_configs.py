"""What embedded replicas train on; their schedules are tests/benchmarks/replicas'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS
from PIL import Image
from torch import nn

import benchmarks.pipelines.classification  # noqa: F401  registers the parts
from benchmarks.pipelines.demo_data.digits import halve, load_digits
from benchmarks.replicas import embedded_target, time_scale
from benchmarks.replicas.targets import SMALL_NETS
from tests.conftest import ROOT

CONFIGS = ROOT / "configs"


def digits(name: str = "imagenet/resnet50_goyal_8xb32-90e", **options: Any) -> Config:
    original = Config.fromfile(CONFIGS / f"{name}.py", import_custom_modules=False)
    replica = time_scale({"run": original}, embedded_target("classification"))["run"].config
    replica.merge_from_dict(options)
    return replica


def test_every_file_is_a_piece_of_some_replica() -> None:
    pieces = {path.name for path in (CONFIGS / "replica").glob("*.py")}
    assert pieces == {"digits.py", "text.py", *SMALL_NETS.values()}


def write_a_digit_a_class(root: Path) -> None:
    train, _, val, _ = load_digits()
    for split, images in (("train", train), ("val", val)):
        for digit, image in enumerate(halve(images[:: len(images) // 10])):
            (root / split / str(digit)).mkdir(parents=True)
            Image.fromarray(image).save(root / split / str(digit) / "0.png")


def test_digits_are_shifted_and_their_labels_redrawn_in_training_only(tmp_path: Path) -> None:
    cfg = digits()
    write_a_digit_a_class(tmp_path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(tmp_path)
    train = DATASETS.build(cfg.train_dataloader.dataset)
    validation = DATASETS.build(cfg.val_dataloader.dataset)
    torch.manual_seed(0)
    draws = [train[0] for _ in range(300)]
    # .3 · .9: a redrawn label may be the old one
    assert sum(draw["label"] != 0 for draw in draws) / 300 == pytest.approx(0.27, abs=0.08)
    assert len({draw["inputs"].numpy().tobytes() for draw in draws}) > 15
    assert draws[0]["inputs"].shape == (1, 14, 14)
    assert all(
        draw["label"] == 0 and torch.equal(draw["inputs"], validation[0]["inputs"])
        for draw in (validation[0] for _ in range(20))
    )


def test_their_validations_are_logged_one_by_one_as_the_originals() -> None:
    original = Config.fromfile(
        CONFIGS / "imagenet" / "resnet50_goyal_8xb32-90e.py", import_custom_modules=False
    )
    pattern = original.log_processor.mean_pattern
    assert digits().log_processor == {"mean_pattern": pattern, "by_epoch": False}


@pytest.mark.parametrize(
    ("name", "options", "norms_decay"),
    [
        ("imagenet/resnet50_goyal_8xb32-90e", {}, False),
        ("imagenet/resnet50_adamw_8xb32-90e", {}, False),
        # the suite's control
        (
            "imagenet/resnet50_goyal_8xb32-90e",
            {"optim_wrapper.paramwise_cfg.norm_decay_mult": 1.0},
            True,
        ),
    ],
)
def test_only_the_control_lets_norms_decay(
    name: str, options: dict[str, float], norms_decay: bool
) -> None:
    cfg = digits(name, **options)
    weight_decay = cfg.optim_wrapper.optimizer.weight_decay
    model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convs) == len(norms) == 9
    assert all(decay[id(conv.weight)] == weight_decay for conv in convs)
    assert decay[id(model.network.fc.weight)] == weight_decay
    assert decay[id(model.network.fc.bias)] == 0
    expected = weight_decay if norms_decay else 0
    assert all(decay[id(p)] == expected for norm in norms for p in (norm.weight, norm.bias))
