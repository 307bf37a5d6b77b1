"""Runs that a figure or a table sets side by side differ in what it compares, and in nothing else.

And what the networks that they train must have: the papers' sizes, and decay where it belongs.
"""

from __future__ import annotations

import pytest
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

import benchmarks.pipelines.classification  # noqa: F401  registers the parts
from smd_hooks.optim import RotationalAdamW
from tests.configs.comparing import differing, load

OPTIMIZER = "optim_wrapper.optimizer"
TASKS = {
    "imagenet/resnet50_goyal_8xb32-90e": "imagenet/resnet50_{}_8xb32-90e",
    "coco/mask-rcnn_r50_fpn_syncbn-scratch_4x_coco": (
        "coco/mask-rcnn_r50_fpn_syncbn-scratch-{}_4x_coco"
    ),
    "coco/faster-rcnn_r50_fpn_1x_coco": "coco/faster-rcnn_r50_fpn-{}_1x_coco",
    "coco/retinanet_r50_fpn_1x_coco": "coco/retinanet_r50_fpn-{}_1x_coco",
}
RESCALED = {
    "imagenet/resnet50_goyal-rescaled_8xb32-90e": "imagenet/resnet50_goyal_8xb32-90e",
    "imagenet/resnet50_adamw-rescaled_8xb32-90e": "imagenet/resnet50_adamw_8xb32-90e",
    "coco/mask-rcnn_r50_fpn_syncbn-scratch-rescaled_4x_coco": (
        "coco/mask-rcnn_r50_fpn_syncbn-scratch_4x_coco"
    ),
    "cifar10/resnet18_sgdm-rescaled_b128-200e": "cifar10/resnet18_sgdm_b128-200e",
}
TURNED = {
    "imagenet/resnet50_cosine-rotational-sgd_8xb32-90e": "imagenet/resnet50_cosine_8xb32-90e",
    "imagenet/resnet50_large-batch-rotational-sgd_8xb1024-10e": (
        "imagenet/resnet50_large-batch_8xb1024-10e"
    ),
    "imagenet/deit-tiny-rotational-adamw_8xb128-300e": "imagenet/deit-tiny_8xb128-300e",
    **{
        f"cifar10/resnet20_rotational-{turned}_{batch}-200e": f"cifar10/resnet20_{own}_{batch}-200e"
        for turned, own in (("adamw", "adamw"), ("sgd", "sgdm"), ("lion", "lion"))
        for batch in ("b128", "b2048")
    },
}


@pytest.mark.parametrize("optimizer", ["adamw", "rotational-sgd", "rotational-adamw", "liona"])
@pytest.mark.parametrize("plain", TASKS)
def test_normalized_optimizers_differ_by_the_optimizer(plain: str, optimizer: str) -> None:
    changed = differing(load(TASKS[plain].format(optimizer)).to_dict(), load(plain).to_dict())
    assert f"{OPTIMIZER}.type" in changed
    others = {key for key in changed if not key.startswith(f"{OPTIMIZER}.")}
    assert others == (leaves_predictors_out(plain) if "rotational" in optimizer else set())


def leaves_predictors_out(plain: str) -> set[str]:
    """Name what a rotational detector says besides: the mask head's config has other keys there."""
    if "coco" not in plain:
        return set()
    keys = ".custom_keys" if "mask" in plain else ""
    return {"predictors", f"optim_wrapper.paramwise_cfg{keys}"}


@pytest.mark.parametrize("name", RESCALED)
def test_rescaled_runs_differ_by_one_hook(name: str) -> None:
    rescaled, plain = load(name), load(RESCALED[name])
    assert differing(rescaled.to_dict(), plain.to_dict()) == {"custom_hooks"}
    added = {"type": "EquilibriumRescaleHook"}
    assert rescaled.custom_hooks == [*plain.custom_hooks, added]


@pytest.mark.parametrize("name", TURNED)
def test_rotational_runs_take_every_setting_over(name: str) -> None:
    changed = differing(load(name).to_dict(), load(TURNED[name]).to_dict())
    assert changed == {f"{OPTIMIZER}.type"}


@pytest.mark.parametrize("optimizer", ["adamw", "sgdm", "lion"])
def test_the_large_batch_differs_by_batch_and_rate(optimizer: str) -> None:
    small, large = (
        load(f"cifar10/resnet20_{optimizer}_b{batch}-200e").to_dict() for batch in (128, 2048)
    )
    batch = {"train_dataloader.batch_size", "auto_scale_lr.base_batch_size"}
    assert differing(small, large) == {f"{OPTIMIZER}.lr", *batch}


def test_fig_2_differs_by_momentum_and_measures_every_step() -> None:
    sgdm = load("imagenet/resnet50_constant-lr_8xb32-450k")
    sgd = load("imagenet/resnet50_constant-lr-sgd_8xb32-450k")
    assert differing(sgdm.to_dict(), sgd.to_dict()) == {f"{OPTIMIZER}.momentum"}
    assert sgdm.custom_hooks == [{"type": "SMDHook", "interval": 1}]
    assert sgdm.train_cfg.max_iters % sgdm.train_cfg.val_interval == 0


@pytest.mark.parametrize(
    ("name", "millions"),
    # He et al. (2016) give .27 million for ResNet-20 (table 6); 11.17 is ResNet-18's usual count
    [("cifar10/resnet18_sgdm_b128-200e", 11.17), ("cifar10/resnet20_sgdm_b128-200e", 0.27)],
)
def test_cifar_networks_have_the_papers_size(name: str, millions: float) -> None:
    model = MODELS.build(load(name).model)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(("recipe", "begins"), [("goyal", 0.0), ("cosine", 1.0)])
def test_where_the_last_gains_begin(recipe: str, begins: float) -> None:
    network = MODELS.build(load(f"imagenet/resnet50_{recipe}_8xb32-90e").model).network
    gains = [m.weight for name, m in network.named_modules() if name.endswith("bn3")]
    assert len(gains) == 16
    assert all((gain == begins).all() for gain in gains)


def test_what_does_not_decay_in_deit_does_not_turn() -> None:
    pytest.importorskip("timm")
    cfg = load("imagenet/deit-tiny-rotational-adamw_8xb128-300e")
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer) is RotationalAdamW
    names = {parameter: name for name, parameter in model.named_parameters()}
    turned = {names[p] for g in optimizer.param_groups for p in g["params"] if g["weight_decay"]}
    assert turned == {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and name.rpartition(".")[2] not in ("cls_token", "pos_embed")
    }
    assert len(turned) == 1 + 4 * 12 + 1  # patches, four in each block, classifier
