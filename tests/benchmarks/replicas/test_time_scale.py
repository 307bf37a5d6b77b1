from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from itertools import pairwise

import pytest
from mmengine.config import Config

from benchmarks.errors import UsageError
from benchmarks.pipelines import mmcv_ops
from benchmarks.replicas import Replica, embedded_target, time_scale
from benchmarks.replicas.epochs import full_epoch
from smd_hooks.analysis.forecast.forecast import Forecast, forecast_plan
from smd_hooks.planning import read_plan
from tests.conftest import ROOT

mmcv_ops.install()

GOYAL = "imagenet/resnet50_goyal_8xb32-90e"
CIFAR = "cifar10/resnet18_sgdm_b128-200e"
COCO = "coco/mask-rcnn_r50_fpn_syncbn-scratch_4x_coco"


@cache
def _loaded(name: str) -> Config:
    return Config.fromfile(ROOT / "configs" / f"{name}.py")


def load(name: str) -> Config:
    return deepcopy(_loaded(name))


def replicas(longest: float = 10.0, **names: str) -> dict[str, Replica]:
    configs = {role: load(name) for role, name in names.items()}
    task = "detection" if next(iter(names.values())).startswith("coco") else "classification"
    return time_scale(configs, embedded_target(task), longest)


def forecast_of(config: Config) -> Forecast:
    return forecast_plan(read_plan(config, "", full_epoch(config)))


def ends(config: Config) -> list[float]:
    """Δ/Δ* at the end of each stage but a warmup, by the closed form."""
    stages = forecast_of(config).groups[0].stages
    return [stage.ratio[-1] or math.nan for stage in stages if stage.name != "warmup"]


def lengths(config: Config) -> list[float]:
    """Length of each stage but a warmup, in relaxation times."""
    stages = forecast_of(config).groups[0].stages
    return [stage.length or math.nan for stage in stages if stage.name != "warmup"]


@pytest.mark.parametrize(
    ("name", "longest", "expected"),
    [
        (GOYAL, 10, [1.000, 0.989, 0.373, 0.119]),
        (COCO, 13, [1.000, 0.364, 0.116]),
        (CIFAR, 10, [1.000, 0.961, 0.350, 0.111]),
        ("imagenet/resnet50_adamw_8xb32-90e", 10, None),
    ],
)
def test_the_closed_form_is_the_originals_at_every_stage_end(
    name: str, longest: float, expected: list[float] | None
) -> None:
    replica = replicas(longest, plain=name)["plain"].config
    original = ends(load(name))
    assert ends(replica) == pytest.approx(original, abs=1e-2)
    assert expected is None or original == pytest.approx(expected, abs=2e-3)
    assert lengths(replica)[1:] == pytest.approx(lengths(load(name))[1:], rel=5e-3)
    control = deepcopy(replica)  # in fewer steps with the decay that it had, nothing relaxes
    control.optim_wrapper.optimizer.weight_decay = load(name).optim_wrapper.optimizer.weight_decay
    assert all(a < b / 5 for a, b in zip(lengths(control), lengths(replica), strict=True))
    assert ends(control) != pytest.approx(original, abs=0.1)


@pytest.mark.parametrize(
    "name", ["imagenet/resnet50_cosine_8xb32-90e", "cifar10/resnet20_adamw_b128-200e"]
)
def test_so_it_is_half_way_along_a_cosine(name: str) -> None:
    def half_way(config: Config) -> float:
        stage = forecast_of(config).groups[0].stages[-1]
        assert stage.kind == "falling"
        return stage.ratio[1] or math.nan

    replica = replicas(plain=name)["plain"].config
    assert half_way(replica) == pytest.approx(half_way(load(name)), abs=1e-2)


def test_imagenets_replica_is_what_was_found_by_hand() -> None:
    replica = replicas(plain=GOYAL)["plain"]
    cfg = replica.config
    assert cfg.optim_wrapper.optimizer == dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.005)
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
    [schedule] = cfg.param_scheduler
    assert schedule.milestones == pytest.approx([500, 3500, 5500], abs=6)
    assert cfg.train_cfg.max_iters == pytest.approx(6500, abs=6)
    assert replica.scale == (
        f"time-scaled by 50: {cfg.train_cfg.max_iters:,} steps for 450,450, weight decay × 50; "
        "stage 1 cut from 60.1 τ to 10 τ; momentum remembers as many steps as at full size; "
        "a small ResNet on digits; batch 32 for 256"
    )


def test_scale_is_told_of_what_is_trained_in_the_end() -> None:
    replica = replicas(plain=GOYAL)["plain"]
    changed = copy.deepcopy(replica.config)
    changed.merge_from_dict(
        {
            "train_cfg.max_iters": 50,
            "train_dataloader.batch_size": 16,
            "optim_wrapper.optimizer.weight_decay": 0.01,
            "optim_wrapper.paramwise_cfg.custom_keys": {"pos_embed": {"decay_mult": 0.0}},
        }
    )
    assert replica.scale_of(changed) == (
        f"time-scaled by 50: 50 of {replica.config.train_cfg.max_iters:,} steps for 450,450; "
        "stage 1 cut from 60.1 τ to 10 τ; momentum remembers as many steps as at full size; "
        "a small ResNet on digits; batch 16 for 256; "
        "no parameters here for its settings of pos_embed"
    )
    changed.train_dataloader.batch_size = 256
    assert "batch" not in replica.scale_of(changed)


def test_all_runs_of_an_experiment_share_a_factor_and_the_slowest_says_what_is_cut() -> None:
    found = replicas(
        sgd="imagenet/resnet50_constant-lr-sgd_8xb32-450k",
        sgdm="imagenet/resnet50_constant-lr_8xb32-450k",
    )
    assert [r.config.train_cfg.max_iters for r in found.values()] == [5000, 5000]
    assert [r.config.optim_wrapper.optimizer.weight_decay for r in found.values()] == [0.0025] * 2
    assert "cut from 36 τ to 10 τ" in found["sgd"].scale
    assert "cut from 360 τ to 100 τ" in found["sgdm"].scale
    alone = replicas(sgd="imagenet/resnet50_constant-lr-sgd_8xb32-450k")
    assert alone["sgd"].config.train_cfg.max_iters == 500


def test_runs_of_other_lengths_have_a_factor_of_their_own() -> None:
    names = {f"lion-{b}": f"cifar10/resnet20_lion_{b}-200e" for b in ("b128", "b2048")}
    found = replicas(**names, **{"sgdm-b128": "cifar10/resnet20_sgdm_b128-200e"})
    assert list(found) == ["lion-b128", "lion-b2048", "sgdm-b128"]
    steps = {role: replica.config.train_cfg.max_iters for role, replica in found.items()}
    assert steps["lion-b128"] == steps["sgdm-b128"] == pytest.approx(7820, abs=3)
    assert steps["lion-b2048"] == 5000
    assert found["lion-b2048"].config.optim_wrapper.optimizer.weight_decay == 1
    assert found["lion-b2048"].scale.startswith("at its own speed: 5,000 steps for 5,000; ")


def test_hooks_and_optimizers_stay_and_every_step_is_measured() -> None:
    found = replicas(
        plain=GOYAL,
        rescaled="imagenet/resnet50_goyal-rescaled_8xb32-90e",
        turned="imagenet/resnet50_rotational-sgd_8xb32-90e",
    )
    measured = dict(type="SMDHook", interval=1)
    assert found["plain"].config.custom_hooks == [measured]
    assert found["rescaled"].config.custom_hooks == [measured, dict(type="EquilibriumRescaleHook")]
    assert found["turned"].config.optim_wrapper.optimizer == dict(
        type="RotationalSGD", lr=0.1, momentum=0.9, weight_decay=0.005
    )
    rescaled = deepcopy(found["rescaled"].config)
    rescaled.custom_hooks = found["plain"].config.custom_hooks
    assert rescaled.to_dict() == found["plain"].config.to_dict()


def equilibrium_angles(config: Config) -> list[float]:
    stages = forecast_of(config).groups[0].stages
    return [stage.equilibrium_angle[0] or math.nan for stage in stages if stage.name != "warmup"]


def test_set_angles_grow_with_those_of_equilibrium() -> None:
    turned = "imagenet/resnet50_lionar_8xb32-90e"
    given = load(turned)
    given.optim_wrapper.optimizer.angle = 3e-3
    configs = {"sgdm": load(GOYAL), "turned": load(turned), "given": given}
    found = time_scale(configs, embedded_target("classification"))
    grown = [
        equilibrium_angles(found[role].config)[0] / equilibrium_angles(configs[role])[0]
        for role in configs
    ]
    assert grown == pytest.approx([math.sqrt(50)] * 3, rel=1e-3)
    assert "angle × 7.07" in found["given"].scale


def test_adams_second_moments_are_scaled_and_its_l2_more_than_that() -> None:
    found = replicas(sgdm=CIFAR, adam="cifar10/resnet18_adam_b128-200e")
    optimizer = found["adam"].config.optim_wrapper.optimizer
    assert optimizer.betas == (0.9, 0.99)
    assert optimizer.weight_decay == pytest.approx(5e-4 * 10**1.5, rel=1e-5)
    assert "weight decay × 31.6228, beta2 0.99 for 0.999; stage 1 cut from 2,346 steps to 500" in (
        found["adam"].scale
    )
    assert found["adam"].config.train_cfg == found["sgdm"].config.train_cfg


def test_decay_is_the_optimizers_own_whatever_single_weights_have() -> None:
    cfg = load("imagenet/resnet50_adamw_8xb32-90e")
    cfg.optim_wrapper.paramwise_cfg.custom_keys = {"network": dict(decay_mult=0.5)}
    [replica] = time_scale({"adamw": cfg}, embedded_target("classification")).values()
    # τ = 1/(2·lr·λ) = 10,000 steps, for the matrices' λ is half of what is stated
    assert replica.config.optim_wrapper.optimizer.weight_decay == pytest.approx(0.1 * 200)


def test_decay_that_is_not_stated_is_the_optimizers_default() -> None:
    cfg = load("imagenet/resnet50_adamw_8xb32-90e")
    cfg.optim_wrapper = dict(optimizer=dict(type="AdamW", lr=0.01))
    [replica] = time_scale({"adamw": cfg}, embedded_target("classification")).values()
    assert replica.config.optim_wrapper.optimizer.weight_decay == pytest.approx(0.01 * 100)


def test_it_is_validated_as_often_as_asked() -> None:
    original = {"plain": load(GOYAL)}
    found = [
        time_scale(original, embedded_target("classification"), validations=times)["plain"]
        for times in (20, 100)
    ]
    assert [replica.config.train_cfg.val_interval for replica in found] == [326, 66]


def test_settings_of_parameters_that_the_small_net_lacks_are_told() -> None:
    cfg = load(GOYAL)
    cfg.optim_wrapper.paramwise_cfg.custom_keys = {
        "fc": dict(lr_mult=0.1),
        "pos_embed": dict(decay_mult=0.0),
    }
    [replica] = time_scale({"plain": cfg}, embedded_target("classification")).values()
    assert replica.scale.endswith("; no parameters here for its settings of pos_embed")


def test_the_replica_survives_being_written_and_read() -> None:
    [replica] = replicas(plain=COCO).values()
    text = replica.config.pretty_text
    assert Config.fromstring(text, ".py").to_dict() == replica.config.to_dict()


def test_what_was_given_stays_as_it_was() -> None:
    cfg = load(GOYAL)
    before = cfg.to_dict()
    time_scale({"plain": cfg}, embedded_target("classification"))
    assert cfg.to_dict() == before


def changed(**options: object) -> Mapping[str, Config]:
    cfg = load(GOYAL)
    cfg.merge_from_dict(options)
    return {"plain": cfg}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"optim_wrapper.accumulative_counts": 4}, "plain accumulates gradients"),
        ({"val_evaluator.type": "CocoMetric"}, "plain is a detection run, and the target is for"),
        ({"param_scheduler.type": "ExponentialLR"}, "param_scheduler"),
        ({"train_cfg.max_epochs": 0}, "plain cannot be time-scaled: the config's train_cfg has no"),
        ({"train_dataloader.dataset.data_root": "nowhere"}, "get the data"),
        ({"train_dataloader.dataset.data_root": "nowhere/imagenette"}, "get the data"),
    ],
)
def test_what_cannot_be_scaled_gets_one_line(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        time_scale(changed(**options), embedded_target("classification"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "iterations"),
    [(GOYAL, 5005), (CIFAR, 391), ("coco/faster-rcnn_r50_fpn_1x_coco", 7330), (COCO, None)],
)
def test_the_originals_epoch_is_known_without_its_data(name: str, iterations: int | None) -> None:
    assert full_epoch(load(name)) == iterations


def test_longest_cuts_at_constant_rates_only() -> None:
    def steps(longest: float) -> list[int]:
        [replica] = replicas(longest, plain=GOYAL).values()
        [schedule] = replica.config.param_scheduler
        bounds = [0, *schedule.milestones, replica.config.train_cfg.max_iters]
        return [b - a for a, b in pairwise(bounds)]

    assert steps(20) == [1000, 3003, 2002, 1001]
    assert steps(3) == [150, 1500, 2002, 1001]
    [cosine] = replicas(0.1, plain="imagenet/resnet50_cosine_8xb32-90e").values()
    assert cosine.config.train_cfg.max_iters > 9000
