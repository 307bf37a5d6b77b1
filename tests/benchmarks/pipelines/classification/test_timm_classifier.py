from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification import TimmClassifier


def build(**options: Any) -> TimmClassifier:
    config = dict(
        type="TimmClassifier",
        arch="resnet10t",
        num_classes=4,
        data_preprocessor=dict(type="ImagePreprocessor", mean=[128.0] * 3, std=[64.0] * 3),
    )
    torch.manual_seed(0)
    return MODELS.build({**config, **options})


def test_it_is_timms_network_with_these_outputs_and_options() -> None:
    pytest.importorskip("timm")
    model = build(arch="deit_tiny_patch16_224", arch_options=dict(drop_path_rate=0.1))
    # what Touvron et al. (2021), table 1, give for 1,000 classes, less the classes
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(5.7e6 - 193 * 996, rel=0.01)
    assert model.network.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    assert model.network.blocks[0].drop_path1.__class__.__name__ == "Identity"
    assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 4)


def test_it_trains_as_the_other_classifier_does() -> None:
    pytest.importorskip("timm")
    model = build()
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type="SGD", lr=0.05)))
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    batch = dict(inputs=images, label=torch.arange(8) % 4)
    losses = [model.train_step(batch, wrapper)["loss"].item() for _ in range(10)]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(arch="resnet51t"), "model.arch='resnet51t' is no model of timm"),
        (dict(arch_options=dict(depth=3)), "do not fit arch 'resnet10t'"),
    ],
)
def test_unusable_network_is_one_line(options: dict[str, Any], message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(UsageError) as caught:
        build(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_timm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="pip install timm"):
        build()
