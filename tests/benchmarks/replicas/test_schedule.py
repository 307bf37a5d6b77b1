from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader

import benchmarks.pipelines  # noqa: F401  registers WarmupShareLR
from benchmarks.errors import UsageError
from benchmarks.replicas.scaling import TimeMap
from benchmarks.replicas.schedule import knots, rewrite_schedule
from smd_hooks.planning.schedules import read_schedule

EPOCH = 100
EPOCHS = 20


def config(*schedulers: dict[str, Any]) -> Config:
    return Config(dict(param_scheduler=list(schedulers), train_cfg=dict(max_epochs=EPOCHS)))


def rates(schedulers: Any, iterations: int, epoch: int | None) -> np.ndarray:
    starts, lr = read_schedule(schedulers, [1.0], iterations, epoch, epoch is not None)
    return np.repeat(lr[:, 0], np.diff(np.append(starts, iterations)))


def to_tenth(original: int) -> TimeMap:
    return TimeMap((0, original), (0, original // 10), 10)


converted = dict(by_epoch=True, convert_to_iter_based=True)
WARMUP = dict(type="LinearLR", start_factor=0.1, begin=0, end=2, **converted)
COSINE = dict(type="CosineAnnealingLR", T_max=18, begin=2, end=20, **converted)


@pytest.mark.parametrize(
    ("schedulers", "tolerance"),
    [
        ([dict(type="MultiStepLR", milestones=[8, 16], gamma=0.1)], 0),
        ([dict(type="MultiStepLR", begin=4, milestones=[4, 12], gamma=0.1)], 0),
        ([dict(type="ConstantLR", factor=0.5, begin=0, end=5)], 0),
        # ten steps for one: within what a ramp gains in ten
        ([WARMUP, COSINE], 0.1),
        ([dict(type="CosineAnnealingLR", eta_min=0.01, **converted)], 0.02),
        # after n of N iterations it is (n + 1)/N
        ([dict(type="WarmupShareLR", share=0.1, total=EPOCH * EPOCHS, by_epoch=False)], 0.05),
        ([], 0),
    ],
    ids=lambda value: "+".join(s["type"] for s in value) if isinstance(value, list) else "",
)
def test_the_replica_has_the_originals_rate_at_the_same_time(
    schedulers: list[dict[str, Any]], tolerance: float
) -> None:
    original = config(*schedulers)
    iterations = EPOCH * EPOCHS
    expected = rates(original.param_scheduler, iterations, EPOCH)
    rewrite_schedule(original, EPOCH, to_tenth(iterations), [], 4)
    found = rates(original.param_scheduler, iterations // 10, None)
    assert found == pytest.approx(expected[::10], abs=tolerance)


@pytest.mark.parametrize(
    "schedulers", [[dict(type="MultiStepLR", milestones=[8, 16], gamma=0.1)], [WARMUP, COSINE]]
)
def test_in_another_time_it_has_not(schedulers: list[dict[str, Any]]) -> None:
    cfg = config(*schedulers)
    expected = rates(cfg.param_scheduler, EPOCH * EPOCHS, EPOCH)[::10]
    lopsided = TimeMap((0, 1000, 2000), (0, 150, 200), 10)
    rewrite_schedule(cfg, EPOCH, lopsided, [], 4)
    assert np.abs(rates(cfg.param_scheduler, 200, None) - expected).max() > 0.15


def test_a_warmup_ends_where_the_cosine_begins_and_at_full_height() -> None:
    cfg = config(WARMUP, COSINE)
    to = TimeMap((0, 199, 200, 2000), (0, 20, 21, 201), 10)
    assert knots(cfg, EPOCH) == [0, 199, 200, 2000]
    rewrite_schedule(cfg, EPOCH, to, [], 4)
    warmup, cosine = cfg.param_scheduler
    assert (warmup.begin, warmup.end, cosine.begin, cosine.T_max, cosine.end) == (
        *(0, 21, 21),
        *(180, 201),
    )
    found = rates(cfg.param_scheduler, 201, None)
    assert found[20] == pytest.approx(1) == found.max()


def test_knots_of_epochs_are_iterations() -> None:
    cfg = config(
        dict(type="MultiStepLR", milestones=[8, 16]),
        dict(type="LinearLR", start_factor=0.1, begin=0, end=50, by_epoch=False),
    )
    assert knots(cfg, EPOCH) == [0, 49, 800, 1600]


@pytest.mark.parametrize(
    ("scheduler", "says"),
    [
        (
            dict(type="ExponentialLR", gamma=0.9),
            "ExponentialLR: a time-scaled replica knows Warmup",
        ),
        (dict(type="MultiStepLR", milestones=[3]), "MultiStepLR counts epochs, but"),
    ],
)
def test_what_cannot_be_scaled_is_refused_in_one_line(scheduler: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        knots(config(scheduler), None)


def validated(train_cfg: Any) -> list[int]:
    """Iterations after which MMEngine's loop validates."""
    options = {k: v for k, v in train_cfg.items() if k != "type"}
    loop = IterBasedTrainLoop(
        SimpleNamespace(visualizer=SimpleNamespace()), DataLoader([0]), **options
    )
    found = []
    for iteration in range(1, loop.max_iters + 1):  # as the loop's run() does
        loop._iter = iteration
        loop._decide_current_val_interval()
        if loop.iter % loop.val_interval == 0 or loop.iter == loop.max_iters:
            found.append(loop.iter)
    return found


@pytest.mark.parametrize("drops", [[], [70, 150], [70, 74, 150], [3, 198]])
def test_it_is_validated_evenly_and_around_every_drop(drops: list[int]) -> None:
    cfg = config()
    rewrite_schedule(cfg, None, to_tenth(2000), drops, 10)
    around = {drop + i for drop in drops for i in range(-4, 2)}
    expected = {i for i in around | set(range(20, 201, 20)) if 1 <= i <= 200}
    assert set(validated(cfg.train_cfg)) == expected


def test_progress_is_counted_in_iterations_and_can_be_resumed_twice() -> None:
    cfg = config()
    rewrite_schedule(cfg, EPOCH, to_tenth(2000), [], 20)
    assert cfg.log_processor.by_epoch is False
    assert cfg.default_hooks.logger.log_metric_by_epoch is False
    checkpoint = cfg.default_hooks.checkpoint
    assert checkpoint.by_epoch is False
    assert 200 // checkpoint.interval == 2
