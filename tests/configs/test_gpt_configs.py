"""GPT-2's size, schedule and token budget are the paper's; and its replica's are in proportion."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

import benchmarks.pipelines.language  # noqa: F401  registers the parts
from benchmarks.replicas import embedded_target, time_scale
from smd_hooks import forecast
from smd_hooks.planning import read_plan
from tests.configs.comparing import CONFIGS, load

NAMES = sorted(f"gpt/{path.stem}" for path in (CONFIGS / "gpt").glob("*.py"))
STEPS = 5000


@pytest.mark.parametrize("name", NAMES)
def test_all_train_the_same_network_on_as_many_tokens(name: str) -> None:
    """480 × 1,024 tokens in each of 5,000 steps; the published network has 124 M parameters."""
    cfg = load(name)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808
    batch, gpus = cfg.train_dataloader.batch_size, 8
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch == 480
    tokens = gpus * batch * cfg.train_dataloader.dataset.block_size * cfg.train_cfg.max_iters
    assert tokens == 2_457_600_000
    assert cfg.model.block_size == cfg.val_dataloader.dataset.block_size == 1024


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.1, 0.2, 0.5])
def test_the_rate_is_a_trapezoid(share: float) -> None:
    cfg = Config(load("gpt/gpt2-124m_adamw_8xb60-5k").to_dict())
    cfg.param_scheduler[0].share = share
    plan = read_plan(cfg)
    rates = [0.0] * STEPS
    ends = [*plan.starts[1:], STEPS]
    for start, end, lr in zip(plan.starts, ends, plan.groups[0].lr, strict=True):
        rates[int(start) : int(end)] = [float(lr)] * int(end - start)
    expected = [
        6e-4 * min(1.0, (t + 1) / max(1, share * STEPS), (STEPS - t) / (STEPS / 2))
        for t in range(STEPS)
    ]
    assert plan.steps == STEPS
    assert rates == pytest.approx(expected, rel=1e-6)


def test_only_the_optimizer_tells_them_apart() -> None:
    base = load("gpt/gpt2-124m_adamw_8xb60-5k")
    for name in NAMES:
        cfg = load(name)
        same = {k for k in base if k not in ("optim_wrapper", "custom_hooks")}
        assert {k: cfg[k] for k in same} == {k: base[k] for k in same}


def test_the_replica_has_the_trapezoid_and_two_micro_batches_a_step() -> None:
    cfg = load("gpt/gpt2-124m_adamw_8xb60-5k")
    replica = time_scale({"adamw": cfg}, embedded_target("language"), fastest=10)["adamw"]
    own = replica.config
    assert replica.scale.startswith("time-scaled by 10: 500 steps for 5,000, weight decay × 10")
    assert "batch 16 for 480" in replica.scale
    assert (own.train_cfg.max_iters, own.optim_wrapper.accumulative_counts) == (1000, 2)
    assert (own.param_scheduler[0].total, own.param_scheduler[0].share) == (1000, 0.05)
    assert (own.param_scheduler[1].begin, own.param_scheduler[1].end) == (500, 1001)
    assert own.optim_wrapper.optimizer.weight_decay == pytest.approx(1.0)
    assert own.optim_wrapper.optimizer.lr == 6e-4
    (hook,) = own.custom_hooks
    assert (hook.interval, hook.noise.interval, hook.representation.interval) == (1, 2, 2)
    # relaxation times per step, and so per stage, are the original's, in proportion
    unbound = time_scale({"adamw": cfg}, embedded_target("language"))["adamw"].config
    assert unbound.train_cfg.max_iters < 100  # the control: too short for larger learning rates


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lr", "share", "says"),
    [
        (4.8e-3, 0.0, "0.24 of the weights' norm, 34 × the equilibrium's 0.0071, and there is no"),
        (6e-4, 0.0, "0.03 of the weights' norm, 12 × the equilibrium's 0.0025, and there is no"),
        (6e-4, 0.05, "12 × the equilibrium's 0.0025; the warmup begins at 0.004 of that"),
    ],
)
def test_predict_tells_how_large_the_first_step_is(lr: float, share: float, says: str) -> None:
    """24 % of a weight's norm, for Adam's first step is lr in each coordinate, of .02."""
    options = {"optim_wrapper.optimizer.lr": lr, "param_scheduler.0.share": share}
    config = CONFIGS / "gpt" / "gpt2-124m_adamw_8xb60-5k.py"
    assert says in " ".join(str(forecast(config, cfg_options=options)).split())
