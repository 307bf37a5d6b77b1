"""Two processes are one: the batch shared out, the weights sharded, the run resumed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from smd_hooks.optim import LionA, LionAR, RotationalAdamW, RotationalLion, RotationalSGD
from smd_hooks.optim.sphere_optimizer import SphereOptimizer
from tests.measure.processes import PROCESSES, on_two_processes
from tests.optim.cases import PLAIN, Case, name_of, norms

pytestmark = pytest.mark.slow

STEPS, BATCH = 20, 8
WHOLE = StateDictOptions(full_state_dict=True)
CASES = [
    *PLAIN,
    Case(LionAR, {"per_neuron": False, "nesterov": True}),
    Case(RotationalSGD, {"per_neuron": False}),
    Case(RotationalAdamW, {"zero_mean": False}),
    Case(RotationalLion, {"per_neuron": False, "zero_mean": False}),
]


def network() -> nn.Module:
    """Norms of single examples only, and rows that no two processes can share evenly."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 5, bias=False),
        nn.LayerNorm(5),
        nn.Tanh(),
        nn.Linear(5, 1, bias=False),
        nn.Linear(1, 3),
    ).double()


def batches(first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
    for t in range(first, last):
        generator = torch.Generator().manual_seed(t)
        yield (
            torch.randn(BATCH, 3, 6, 6, dtype=torch.float64, generator=generator),
            torch.randint(3, (BATCH,), generator=generator),
        )


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int | None,
    first: int = 0,
    last: int = STEPS,
) -> None:
    """Train on whole batches, or on this process's half of each."""
    for x, y in batches(first, last):
        if rank is not None:
            x, y = x.chunk(PROCESSES)[rank], y.chunk(PROCESSES)[rank]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def on_one_process(case: Case) -> list[Tensor]:
    model = network()
    train(model, case.build(model.parameters()), None)
    return [w.detach() for w in model.parameters()]


def same(found: list[Tensor], wanted: list[Tensor], bound: float = 1e-12) -> bool:
    pairs = zip(found, wanted, strict=True)
    return all(float((a - b).norm() / b.norm()) <= bound for a, b in pairs)


# ------------------------------------------------------------------------------------ DDP


def in_parallel(rank: int) -> list[list[Tensor]]:
    found = []
    for case in CASES:
        model = DistributedDataParallel(network())
        train(model, case.build(model.parameters()), rank)
        found.append([w.detach() for w in model.parameters()])
    return found


def test_two_processes_step_as_one_with_the_joined_batch(tmp_path: Path) -> None:
    for told in on_two_processes(tmp_path, in_parallel):
        for case, weights in zip(CASES, told, strict=True):
            assert same(weights, on_one_process(case)), name_of(case)


def test_control_half_the_batch_ends_elsewhere() -> None:
    for case in CASES:
        model = network()
        train(model, case.build(model.parameters()), 0)
        assert not same([w.detach() for w in model.parameters()], on_one_process(case), 1e-3)


# ---------------------------------------------------------------------------------- FSDP2


def gathered(weights: Any) -> list[Tensor]:
    return [w.full_tensor().detach() for w in weights]


def sharded(rank: int) -> list[list[Tensor]]:
    found = []
    for case in CASES:
        model = network()
        for layer in (model[0], model[4]):  # type: ignore[index]
            fully_shard(layer)
        fully_shard(model)
        train(model, case.build(model.parameters()), rank)
        found.append(gathered(model.parameters()))
    return found


def test_sharded_weights_step_as_whole_ones(tmp_path: Path) -> None:
    for told in on_two_processes(tmp_path, sharded):
        for case, weights in zip(CASES, told, strict=True):
            assert same(weights, on_one_process(case)), name_of(case)


def stopped_and_resumed(rank: int) -> list[list[Tensor]]:
    """Run, save through torch's state dict API on the way, and go on in fresh objects."""
    found = []
    for case in CASES:

        def fresh(case: Case = case) -> tuple[nn.Module, SphereOptimizer]:
            model = network()
            fully_shard(model)
            return model, case.build(model.parameters())

        model, optimizer = fresh()
        train(model, optimizer, rank, last=7)
        weights = copy.deepcopy(get_model_state_dict(model))
        state = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
        whole: Any = get_optimizer_state_dict(model, optimizer, options=WHOLE)
        if rank == 0:
            radii = [len(e["radius"]) for e in whole["state"].values() if "radius" in e]
            assert radii == numbers_of_radii(case), name_of(case)
        train(model, optimizer, rank, first=7)

        resumed, other = fresh()
        resumed.load_state_dict(weights)
        set_optimizer_state_dict(resumed, other, state)
        train(resumed, other, rank, first=7)
        pairs: Any = zip(model.parameters(), resumed.parameters(), strict=True)
        assert all(torch.equal(a.to_local(), b.to_local()) for a, b in pairs), name_of(case)
        found.append(gathered(resumed.parameters()))
    return found


def numbers_of_radii(case: Case) -> list[int]:
    """Of each weight: one, or one per row; the last weight's rows have a single element."""
    if case.kind is LionA:
        return []
    return [6, 5, 1] if case.per_neuron else [1, 1, 1, 1]


def test_a_sharded_run_is_resumed_bit_by_bit(tmp_path: Path) -> None:
    for told in on_two_processes(tmp_path, stopped_and_resumed):
        for case, weights in zip(CASES, told, strict=True):
            assert same(weights, on_one_process(case)), name_of(case)


# ------------------------------------------------------------------------ other shardings

SHAPES = [(7, 12), (5, 3, 4), (1, 9), (8, 2)]
LAYOUTS: list[Callable[[int], list[Any]]] = [
    lambda dim: [Shard(0)],
    lambda dim: [Shard(1)],
    lambda dim: [Shard(dim - 1)],
    lambda dim: [Replicate()],
]


def white(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def walk(case: Case, spread: Callable[[Tensor], Tensor]) -> list[nn.Parameter]:
    weights = [nn.Parameter(spread(white(shape, i))) for i, shape in enumerate(SHAPES)]
    optimizer = case.build(weights)
    for t in range(STEPS):
        for i, w in enumerate(weights):
            w.grad = spread(white(SHAPES[i], 100 * t + i))
        optimizer.step()
    return weights


def cut_in_other_ways(rank: int) -> list[list[list[Tensor]]]:
    mesh = init_device_mesh("cpu", (PROCESSES,))

    def spread_as(layout: Callable[[int], list[Any]]) -> Callable[[Tensor], Tensor]:
        return lambda x: distribute_tensor(x, mesh, layout(x.ndim))

    return [[gathered(walk(case, spread_as(layout))) for layout in LAYOUTS] for case in CASES]


def test_weights_cut_along_any_dimension_step_as_whole_ones(tmp_path: Path) -> None:
    for told in on_two_processes(tmp_path, cut_in_other_ways):
        for case, layouts in zip(CASES, told, strict=True):
            wanted = [w.detach() for w in walk(case, lambda x: x)]
            for weights in layouts:
                assert same(weights, wanted), name_of(case)


def test_whole_weights_of_these_shapes_keep_their_norms() -> None:
    """What the sharded ones are held equal to."""
    for case in CASES:
        if case.kind is LionA:
            continue
        for i, w in enumerate(walk(case, lambda x: x)):
            before = norms(white(SHAPES[i], i), case.per_neuron)
            is_free = w.numel() // (len(w) if case.per_neuron else 1) - 1 >= 2
            if is_free:
                assert torch.allclose(norms(w, case.per_neuron), before, rtol=1e-6)


def shards_are_not_mixed_up(rank: int) -> bool:
    """A row that is cut has one radius, the same on both processes."""
    mesh = init_device_mesh("cpu", (PROCESSES,))
    w = nn.Parameter(distribute_tensor(white((7, 12), 0), mesh, [Shard(1)]))
    optimizer = RotationalAdamW([w], 0.01, weight_decay=0.1)
    w.grad = distribute_tensor(white((7, 12), 1), mesh, [Shard(1)])
    optimizer.step()
    radius = optimizer.state[w]["radius"]
    others = [torch.zeros(7) for _ in range(PROCESSES)]
    dist.all_gather(others, radius.to_local())
    wanted = white((7, 12), 0).norm(dim=1).float()
    return all(torch.allclose(other, wanted, rtol=1e-6) for other in others)


def test_a_row_that_is_cut_has_one_radius(tmp_path: Path) -> None:
    assert on_two_processes(tmp_path, shards_are_not_mixed_up) == [True, True]
