"""Learning rates against MMEngine's own schedulers, stepped at every iteration."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.optim import MultiStepLR
from mmengine.registry import PARAM_SCHEDULERS

from benchmarks.pipelines import mmcv_ops
from smd_hooks.planning import schedules
from smd_hooks.planning.scheduler_laws import LAWS, law_of
from smd_hooks.planning.schedules import never_act, read_schedule

mmcv_ops.install()  # before mmdet is imported
from mmdet.engine.schedulers import QuadraticWarmupLR  # noqa: E402

EPOCH = 7
BY_CLASS = {"QuadraticWarmupLR": QuadraticWarmupLR}
"""Of mmdet's own registry."""


def one_by_one(
    configs: list[dict[str, Any]], lrs: list[float], epochs: int, by_epoch: bool = True
) -> np.ndarray:
    """What ParamSchedulerHook does: iteration counters first, then those of epochs."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in lrs]
    groups = [{"params": [w], "lr": lr} for w, lr in zip(weights, lrs, strict=True)]
    optimizer = torch.optim.SGD(groups)
    built = []
    for config in copy.deepcopy(configs):
        config.setdefault("end", epochs if config.get("by_epoch", True) else epochs * EPOCH)
        defaults = dict(optimizer=optimizer, epoch_length=EPOCH)
        built.append(PARAM_SCHEDULERS.build(config, default_args=defaults))
    rates = []
    for iteration in range(1, epochs * EPOCH + 1):
        rates.append([group["lr"] for group in optimizer.param_groups])
        for scheduler in built:
            if not scheduler.by_epoch:
                scheduler.step()
        if iteration % EPOCH == 0 and by_epoch:
            for scheduler in built:
                if scheduler.by_epoch:
                    scheduler.step()
    return np.array(rates)


def all_rates(configs: Any, lrs: list[float], epochs: int, by_epoch: bool = True) -> np.ndarray:
    iterations = epochs * EPOCH
    starts, rates = read_schedule(configs, lrs, iterations, EPOCH, by_epoch)
    assert (np.diff(starts) > 0).all()
    assert starts[-1] < iterations
    return np.repeat(rates, np.diff(np.append(starts, iterations)), axis=0)


def spans(draw: Any, longest: int) -> dict[str, int]:
    begin = draw(st.integers(0, longest - 2))
    return {"begin": begin, "end": draw(st.integers(begin + 2, longest))}


@st.composite
def schedulers(draw: Any, epochs: int) -> dict[str, Any]:
    by_epoch = draw(st.booleans())
    longest = epochs if by_epoch else epochs * EPOCH
    where = {"by_epoch": by_epoch, **spans(draw, longest)}
    if by_epoch and draw(st.booleans()):
        where["convert_to_iter_based"] = True
    length = where["end"] - where["begin"]
    kinds: dict[str, Any] = {
        "MultiStepLR": dict(
            milestones=draw(st.lists(st.integers(0, length), min_size=1, max_size=4)), gamma=0.5
        ),
        "StepLR": dict(step_size=draw(st.integers(1, length)), gamma=0.7),
        "ConstantLR": dict(factor=0.25),
        "LinearLR": dict(start_factor=draw(st.floats(1e-3, 0.9))),
        "ExponentialLR": dict(gamma=0.9),
        "CosineAnnealingLR": dict(eta_min=1e-4),
        "PolyLR": dict(power=0.9, eta_min=1e-4),
        "CosineRestartLR": dict(periods=[length], restart_weights=[1.0], eta_min=1e-3),
        "QuadraticWarmupLR": {},
    }
    kind = draw(st.sampled_from(sorted(kinds)))
    return {"type": BY_CLASS.get(kind, kind), **where, **kinds[kind]}


@given(data=st.data(), epochs=st.integers(3, 9))
@settings(max_examples=150, deadline=None)
def test_rates_are_those_of_training(data: st.DataObject, epochs: int) -> None:
    configs = data.draw(st.lists(schedulers(epochs), min_size=1, max_size=3))
    lrs = [0.1, 0.003]
    reference = one_by_one(configs, lrs, epochs)
    np.testing.assert_allclose(all_rates(configs, lrs, epochs), reference, rtol=1e-7, atol=1e-13)
    with pytest.MonkeyPatch.context() as patch:  # those whose law is not known are stepped
        patch.setattr(schedules, "law_of", lambda scheduler: "")
        np.testing.assert_array_equal(all_rates(configs, lrs, epochs), reference)


def test_every_law_is_followed_and_every_other_scheduler_stepped() -> None:
    """The equality above compares two ways only where there are two."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    common = dict(end=9, by_epoch=False)
    options = {"MultiStepLR": dict(milestones=[1]), "StepLR": dict(step_size=2)}
    options |= {"ExponentialLR": dict(gamma=0.9), "CosineRestartLR": dict(periods=[9], eta_min=0)}
    names = {
        law.replace("ParamScheduler", "LR"): law for law in [*LAWS, "CosineRestartParamScheduler"]
    }
    for name, law in names.items():
        config = dict(type=BY_CLASS.get(name, name), **common, **options.get(name, {}))
        built = PARAM_SCHEDULERS.build(config, default_args=dict(optimizer=optimizer))
        assert law_of(built) == (law if law in LAWS else "")


def test_an_iteration_based_loop_never_ends_an_epoch() -> None:
    configs = [
        dict(type="MultiStepLR", by_epoch=True, milestones=[1], gamma=0.1),
        dict(type="MultiStepLR", by_epoch=False, milestones=[10], gamma=0.5),
    ]
    found = all_rates(configs, [0.1], 5, by_epoch=False)
    np.testing.assert_array_equal(found, one_by_one(configs, [0.1], 5, by_epoch=False))
    assert never_act(configs, by_epoch=False) == ["MultiStepLR"]
    assert never_act(configs, by_epoch=True) == []
    assert found[-1] != one_by_one(configs, [0.1], 5)[-1]  # it would have been other with epochs


class EveryStep(MultiStepLR):
    """A MultiStepLR by name, which changes the rate at every step."""

    def _get_value(self) -> list[float]:
        return [0.9 * group["lr"] for group in self.optimizer.param_groups]


def test_a_subclass_with_its_own_law_is_stepped_everywhere() -> None:
    config = dict(type=EveryStep, by_epoch=False, milestones=[3])
    np.testing.assert_array_equal(all_rates(config, [0.1], 3), one_by_one([config], [0.1], 3))
    assert len(np.unique(all_rates(config, [0.1], 3))) == 3 * EPOCH


def test_no_scheduler_is_a_constant_rate() -> None:
    starts, rates = read_schedule(None, [0.1], 100, None, by_epoch=False)
    assert starts.tolist() == [0]
    assert rates.tolist() == [[0.1]]


def test_milestones_take_no_time_however_long_the_training() -> None:
    config = dict(type="MultiStepLR", by_epoch=False, milestones=[10**8], gamma=0.1)
    began = time.perf_counter()
    starts, rates = read_schedule(config, [0.1], 10**9, None, by_epoch=False)
    assert time.perf_counter() - began < 1
    assert starts.tolist() == [0, 10**8]
    assert rates[:, 0].tolist() == pytest.approx([0.1, 0.01])


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (dict(type="ReduceOnPlateauLR"), "follows a metric"),
        (dict(type="CosineAnnealingMomentum", T_max=3), "schedules the momentum"),
        (dict(type="MultiStepLR"), "cannot be built"),
        (dict(type="NoSuchLR"), "cannot be built"),
        (dict(type="LinearLR", convert_to_iter_based=True), "converted from epochs"),
        ([MultiStepLR], "built already"),
        (dict(type="LinearLR", start_factor=0.0, end=10, by_epoch=False), "is not a number"),
    ],
)
def test_what_cannot_be_foretold_is_refused(config: Any, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        read_schedule(config, [0.1], 100, None, by_epoch=False)
