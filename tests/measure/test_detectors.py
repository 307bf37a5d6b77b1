"""Verdicts on mmdet's detectors, as they are trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import nn

import benchmarks.pipelines.detection  # noqa: F401
from smd_hooks.measure.functional import LOSSES_LIMIT, ForwardCall, scale_response
from smd_hooks.measure.invariance_watch import InvarianceWatch
from smd_hooks.measure.verdict import Verdict

CONFIGS = Path(__file__).parents[2] / "configs" / "coco"
SYNCBN = "mask-rcnn_r50_fpn_syncbn-scratch_4x_coco.py"

pytestmark = pytest.mark.slow


def build(name: str) -> nn.Module:
    register_all_modules()
    config = Config.fromfile(CONFIGS / name, import_custom_modules=False)
    config.model.backbone.init_cfg = None
    if "roi_head" in config.model:  # few proposals are quick
        config.model.train_cfg.rpn_proposal.max_per_img = 20
        config.model.train_cfg.rcnn.sampler.num = 8
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    # SyncBN does not run on CPUs; one process makes it an ordinary BatchNorm anyway
    for parent in list(model.modules()):
        for child_name, child in list(parent.named_children()):
            if isinstance(child, nn.SyncBatchNorm):
                norm = nn.BatchNorm2d(child.num_features, child.eps, child.momentum)
                setattr(parent, child_name, norm)
    return model.train()


def batch(model: nn.Module) -> dict:
    from mmdet.testing import demo_mm_inputs  # only now do mmcv's operators have a stand-in

    data = demo_mm_inputs(2, [[3, 128, 128]] * 2, num_items=[3, 3], with_mask=True)
    return model.data_preprocessor(data, True)


def matrices(model: nn.Module) -> dict[str, Verdict]:
    optimizer = torch.optim.SGD(model.parameters(), lr=2e-4, momentum=0.9)
    watch, findings = InvarianceWatch(model, optimizer), None
    while findings is None:
        optimizer.zero_grad()
        model.parse_losses(model(**batch(model), mode="loss"))[0].backward()
        optimizer.step()
        findings = watch.poll()
    assert findings.groups == []
    return {v.parameter: v for v in findings.verdicts if v.is_matrix}


def test_a_detector_with_norms_everywhere_is_invariant_but_for_its_predictors() -> None:
    model = build(SYNCBN)
    verdicts = matrices(model)
    bare = ("rpn_head", "fc", "conv_logits", "upsample")
    for name, verdict in verdicts.items():
        invariant = not any(part in name for part in bare)
        assert (verdict.scale_invariant, verdict.per_filter) == (invariant, invariant), verdict
    call = ForwardCall.of(model, (), {**batch(model), "mode": "loss"})
    stem = scale_response(call, model.get_parameter("backbone.conv1.weight"))
    assert stem.limit == LOSSES_LIMIT
    assert stem.invariant is True
    assert scale_response(call, model.get_parameter("rpn_head.rpn_conv.weight")).invariant is False


def test_a_stock_detector_has_no_invariant_weight_and_says_why() -> None:
    verdicts = matrices(build("retinanet_r50_fpn_1x_coco.py"))
    assert not any(v.scale_invariant for v in verdicts.values())
    reasons = {
        "backbone.conv1.weight": "frozen (requires_grad=False)",
        "backbone.layer2.0.conv1.weight": "its BatchNorm is in eval mode",
        "neck.lateral_convs.0.conv.weight": "a sum with something else",
        "bbox_head.cls_convs.0.conv.weight": "another weight",
    }
    for name, reason in reasons.items():
        assert reason in verdicts[name].reason
