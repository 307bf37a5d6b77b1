"""A sample's random numbers are those of its draw, whoever makes it and whatever came before."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset

from benchmarks.launch.draws import NumberedBatches, number_draws, seed_generators, seed_of_draw

SIZE, BATCH = 10, 3


class Drawing(Dataset):
    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> list[float]:
        return [index, random.random(), np.random.random(), float(torch.rand(()))]  # noqa: NPY002


def batches_of(endless: bool, workers: int = 0, begin: tuple[int, int] = (0, 0)) -> Iterator[Any]:
    sampler = InfiniteSampler if endless else DefaultSampler
    dataset = Drawing()
    loader = DataLoader(
        dataset,
        BATCH,
        sampler=sampler(dataset, shuffle=True, seed=4),
        num_workers=workers,
        collate_fn=list,
    )
    numbered = number_draws(loader, 5, rank=0, world_size=1, endless=endless)
    assert numbered is not None
    numbered.begin_at(*begin)
    return iter(loader)


def by_hand(epoch: int) -> list[list[float]]:
    """The slow reference: the sampler's indices, one after the other, each after its own seed."""
    sampler = DefaultSampler(Drawing(), shuffle=True, seed=4)
    sampler.set_epoch(epoch)
    items = []
    for place, index in enumerate(sampler):
        seed_generators(seed_of_draw(5, epoch, place))
        items.append(Drawing()[index])
    return items


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("skipped", [0, 2])
def test_items_are_those_made_by_hand(workers: int, skipped: int) -> None:
    for epoch in (0, 3):
        batches = batches_of(False, workers, (epoch, skipped))
        items = [item for batch in batches for item in batch]
        assert items == by_hand(epoch)[skipped * BATCH :]
    assert by_hand(0) != by_hand(3)


def test_an_endless_sampler_goes_on_where_it_was() -> None:
    whole = batches_of(True)
    went = [next(whole) for _ in range(12)]
    later = batches_of(True, begin=(0, 7))
    assert [next(later) for _ in range(5)] == went[7:]
    assert went[7] != went[0]


def test_passes_through_a_finite_sampler_follow_each_other() -> None:
    dataset = Drawing()
    loader = DataLoader(
        dataset, BATCH, sampler=DefaultSampler(dataset, shuffle=True, seed=4), collate_fn=list
    )
    numbered = number_draws(loader, 5, 0, 1, endless=True)
    assert numbered is not None
    numbered.begin_at(0, 5)  # a pass has 4 batches
    batches = iter(loader)
    items = [item for _ in range(3) for item in next(batches)]
    assert items == by_hand(1)[BATCH:]


def test_processes_together_draw_what_one_does() -> None:
    def inner(rank: int, world_size: int, batch: int) -> list[list[tuple[int, int]]]:
        sampler = DefaultSampler(Drawing(), shuffle=True, seed=4)
        sampler.rank, sampler.world_size = rank, world_size
        batches = BatchSampler(sampler, batch, drop_last=False)
        return list(NumberedBatches(batches, 5, rank, world_size, endless=False))

    alone, several = inner(0, 1, 4), [inner(rank, 2, 2) for rank in (0, 1)]
    for one, *parts in zip(alone, *several, strict=True):
        assert sorted(one) == sorted(pair for part in parts for pair in part)


class Bucketed(BatchSampler):
    """Batches of even and of odd indices, kept over iterators as mmdet's are by aspect ratio."""

    def __init__(self, sampler: Any) -> None:
        super().__init__(sampler, 2, False)
        self.buckets: list[list[int]] = [[], []]

    def __iter__(self) -> Iterator[list[int]]:
        for index in self.sampler:
            bucket = self.buckets[index % 2]
            bucket.append(index)
            if len(bucket) == 2:
                yield bucket[:]
                del bucket[:]


def test_batches_that_do_not_follow_the_sampler() -> None:
    def numbered(skipped: int) -> Iterator[Any]:
        sampler = InfiniteSampler(Drawing(), shuffle=True, seed=4)
        batches = NumberedBatches(Bucketed(sampler), 5, 0, 1, endless=True)
        batches.begin_at(0, skipped)
        return iter(batches)

    whole, later = numbered(0), numbered(9)
    went = [next(whole) for _ in range(15)]
    assert [next(later) for _ in range(6)] == went[9:]


def test_the_training_process_keeps_its_own_random_numbers() -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    batches = batches_of(False)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    next(batches)
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


def test_control_without_numbers_workers_draw_otherwise() -> None:
    drawn = []
    for workers in (1, 2):
        torch.manual_seed(1)
        dataset = Drawing()
        sampler = DefaultSampler(dataset, shuffle=True, seed=4)
        loader = DataLoader(dataset, BATCH, sampler=sampler, num_workers=workers, collate_fn=list)
        drawn.append(list(loader))
    assert drawn[0] != drawn[1]


def test_seeds_of_neighbours_share_no_pattern() -> None:
    """Every bit of the seed turns in about half of 4,000 neighbouring draws."""
    seeds = [seed_of_draw(s, e, k) for s in range(4) for e in range(10) for k in range(101)]
    assert len(set(seeds)) == len(seeds)
    turned = np.zeros(64)
    pairs = list(itertools.pairwise(seeds))
    for one, other in pairs:
        turned += [(one ^ other) >> bit & 1 for bit in range(64)]
    assert np.all(abs(turned / len(pairs) - 0.5) < 5 * 0.5 / len(pairs) ** 0.5)
    assert {seed >> 32 for seed in (1, 2, 3)} == {0}  # the control: what is mixed was not


def test_what_cannot_be_numbered_is_left_alone() -> None:
    assert number_draws(DataLoader([1, 2, 3]), 0, 0, 1, False) is None
    assert number_draws(DataLoader(Drawing(), batch_size=None), 0, 0, 1, False) is None


def test_an_empty_pass_ends_in_a_line() -> None:
    batches = BatchSampler(range(3), 4, drop_last=True)
    with pytest.raises(ValueError, match="do not fill a batch"):
        next(iter(NumberedBatches(batches, 0, 0, 1, endless=True)))


def test_a_loader_can_be_copied() -> None:
    batches = NumberedBatches(BatchSampler(range(3), 2, False), 0, 0, 1, endless=False)
    assert list(copy.deepcopy(batches)) == list(batches)
    assert len(batches) == 2
    assert batches.batch_size == 2
