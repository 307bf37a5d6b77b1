from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn.functional import log_softmax

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification import TorchvisionClassifier


def build(**options: Any) -> TorchvisionClassifier:
    config = dict(
        type="TorchvisionClassifier",
        arch="cifar_resnet",
        num_classes=4,
        data_preprocessor=dict(type="ImagePreprocessor", mean=[128.0] * 3, std=[64.0] * 3),
    )
    torch.manual_seed(0)
    return MODELS.build({**config, **options})


IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def test_tensor_mode_gives_logits() -> None:
    assert build()(IMAGES).shape == (6, 4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_mean_cross_entropy_with_smoothed_targets(smoothing: float) -> None:
    model = build(label_smoothing=smoothing)
    logits = model(IMAGES)
    targets = (1 - smoothing) * nn.functional.one_hot(LABELS, 4) + smoothing / 4
    expected = -(targets * log_softmax(logits, dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(model(IMAGES, LABELS, mode="loss")["loss"], expected)


def test_mixing_is_for_training_alone() -> None:
    model = build(mixing=dict(mixup=1.0), label_smoothing=0.2)
    torch.manual_seed(5)
    images, targets = model.mixing(IMAGES, LABELS)
    assert not torch.equal(images, IMAGES)
    smoothed = 0.8 * targets + 0.2 / 4
    expected = -(smoothed * log_softmax(model(images), dim=1)).sum(dim=1).mean()
    torch.manual_seed(5)
    torch.testing.assert_close(model(IMAGES, LABELS, mode="loss")["loss"], expected)
    plain = build(label_smoothing=0.2)
    model.eval(), plain.load_state_dict(model.state_dict()), plain.eval()
    here, there = (m(IMAGES, LABELS, mode="loss")["loss"] for m in (model, plain))
    assert torch.equal(here, there)


def test_predict_gives_each_image_its_logits_and_label() -> None:
    model = build().eval()
    samples = model(IMAGES, LABELS, mode="predict")
    torch.testing.assert_close(torch.stack([s["logits"] for s in samples]), model(IMAGES))
    assert [int(s["label"]) for s in samples] == LABELS.tolist()


def test_val_step_takes_a_collated_batch() -> None:
    batch = dict(inputs=torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8), label=LABELS)
    assert len(build().eval().val_step(batch)) == 6


def test_unknown_mode_and_missing_label_are_errors() -> None:
    with pytest.raises(ValueError, match="unknown mode 'train'"):
        build()(IMAGES, LABELS, mode="train")
    with pytest.raises(ValueError, match="needs labels"):
        build()(IMAGES, mode="loss")


def test_channels_last_changes_the_layout_and_not_the_logits() -> None:
    plain, nhwc = build(), build(channels_last=True)
    weight = nhwc.network.stage2[0].first.conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    seen: list[torch.Tensor] = []
    nhwc.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.testing.assert_close(nhwc(IMAGES), plain(IMAGES))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_torchvision_models_take_their_own_options() -> None:
    model = build(arch="resnet18", arch_options=dict(zero_init_residual=True))
    assert not model.network.layer1[0].bn2.weight.any()
    assert build(arch="resnet18").network.layer1[0].bn2.weight.all()
    assert model.network.fc.out_features == 4


def test_init_cfg_applies_on_top() -> None:
    model = build(arch="resnet18", init_cfg=dict(type="Normal", layer="Linear", std=0.01))
    conv = model.network.conv1.weight.detach().clone()
    model.init_weights()
    assert model.network.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert torch.equal(model.network.conv1.weight, conv)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(arch="resnet51"), "model.arch='resnet51'"),
        (dict(arch="fcn_resnet50"), "model.arch='fcn_resnet50'"),
        (dict(arch="resnet18", arch_options=dict(depth=3)), "depth"),
        (dict(arch_options=dict(depth=3)), "depth"),
        (dict(arch="resnet18", arch_options=dict(weights="DEFAULT")), "weights"),
        (dict(arch="googlenet", arch_options=dict(init_weights=False)), "aux_logits=False"),
    ],
)
def test_unusable_network_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
