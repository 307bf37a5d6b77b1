"""The same run in other ways: accumulated, over two processes, sharded over two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from smd_hooks import StepProbe
from tests.measure.processes import PROCESSES, on_two_processes

STEPS, BATCH = 100, 8


def network() -> nn.Module:
    """Norms of single examples only: how a batch is cut does not change the gradient."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 5, bias=False),
        nn.LayerNorm(5),
        nn.Tanh(),
        nn.Linear(5, 3),
    ).double()


def batches(steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(BATCH, 3, 6, 6, dtype=torch.float64, generator=generator),
            torch.randint(3, (BATCH,), generator=generator),
        )
        for _ in range(steps)
    ]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def measured(probe: StepProbe) -> dict[str, Tensor]:
    columns = probe.drain()
    return {name: torch.from_numpy(columns[name]) for name in columns}


def run(parts: int = 1, rank: int | None = None, steps: int = STEPS) -> dict[str, Tensor]:
    """Train on ``parts`` micro-batches a step; with a rank, as one of two processes."""
    model = network()
    trained = model if rank is None else DistributedDataParallel(model)
    optimizer = sgd(trained)
    probe = StepProbe(optimizer, trained.named_parameters())
    for x, y in batches(steps):
        optimizer.zero_grad()
        if rank is not None:
            x, y = x.chunk(PROCESSES)[rank], y.chunk(PROCESSES)[rank]
        for part, labels in zip(x.chunk(parts), y.chunk(parts), strict=True):
            (nn.functional.cross_entropy(trained(part), labels) / parts).backward()
        optimizer.step()
    return measured(probe)


def as_a_process(rank: int) -> dict[str, Tensor]:
    return run(rank=rank)


def test_accumulation_gives_identical_angles() -> None:
    whole, accumulated = run(), run(parts=4)
    assert accumulated["step"].unique().tolist() == list(range(STEPS))
    for name in ("angular_update", "weight_norm", "gradient_norm", "update_norm"):
        assert torch.allclose(accumulated[name], whole[name], rtol=1e-10, atol=0), name


@pytest.mark.slow
def test_two_processes_give_identical_angles(tmp_path: Path) -> None:
    whole = run()
    for told in on_two_processes(tmp_path, as_a_process):
        for name in ("angular_update", "weight_norm", "gradient_norm", "update_norm"):
            assert torch.allclose(told[name], whole[name], rtol=1e-10, atol=0), name


def test_control_another_batch_gives_other_angles() -> None:
    whole = run(steps=5)
    model = network()
    optimizer = sgd(model)
    probe = StepProbe(optimizer, model.named_parameters())
    for x, y in batches(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x.chunk(2)[0]), y.chunk(2)[0]).backward()
        optimizer.step()
    other = measured(probe)
    assert not torch.allclose(other["angular_update"], whole["angular_update"], rtol=1e-2)


def sharded(rank: int) -> dict[str, Tensor]:
    model = network()
    fully_shard(model)
    optimizer = sgd(model)
    probe = StepProbe(optimizer, model.named_parameters())
    group = probe.join(["4.weight", "7.weight"])
    for x, y in batches(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(
            model(x.chunk(PROCESSES)[rank]), y.chunk(PROCESSES)[rank]
        ).backward()
        optimizer.step()
    with pytest.raises(ValueError, match="filters of sharded weights"):
        StepProbe(optimizer, model.named_parameters(), per_filter=True)
    result = measured(probe)
    assert (result["weight"] == group).sum() == 20
    return {name: column[result["weight"] != group] for name, column in result.items()}


@pytest.mark.slow
def test_sharded_weights_are_summed_over_their_shards_on_every_process(tmp_path: Path) -> None:
    whole = run(steps=20)
    for told in on_two_processes(tmp_path, sharded):
        for name in whole:
            assert torch.allclose(told[name], whole[name], rtol=1e-10, atol=1e-14), name


def zero(rank: int) -> str:
    model = DistributedDataParallel(network())
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
    with pytest.raises(RuntimeError, match="StepProbe: ZeroRedundancyOptimizer keeps") as error:
        StepProbe(optimizer, model.named_parameters())
    assert dist.is_initialized()
    return str(error.value)


@pytest.mark.slow
def test_an_optimizer_that_hides_its_state_is_refused_in_one_line(tmp_path: Path) -> None:
    for line in on_two_processes(tmp_path, zero):
        assert "\n" not in line
        assert "FSDP2" in line


class DeepSpeedZeroOptimizer:
    """Like DeepSpeed's: no ``torch.optim.Optimizer`` at all."""

    param_groups: tuple[()] = ()


def test_an_optimizer_of_another_make_is_refused_in_one_line() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(RuntimeError, match=r"DeepSpeedZeroOptimizer does not step .* DDP"):
        StepProbe(DeepSpeedZeroOptimizer(), [("w", weight)])  # type: ignore[arg-type]

    class Wrapper(torch.optim.SGD):
        optimizer = torch.optim.SGD([weight], lr=0.1)

    with pytest.raises(RuntimeError, match="Wrapper wraps another optimizer; give the inner one"):
        StepProbe(Wrapper([weight], lr=0.1), [("w", weight)])

    flat = nn.Parameter(torch.ones(4))
    flat._fsdp_flattened = True  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="FullyShardedDataParallel flattens"):
        StepProbe(torch.optim.SGD([flat], lr=0.1), [("w", flat)])
