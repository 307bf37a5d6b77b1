"""Which random numbers a training sample is made with: its own, whoever makes it.

MMEngine seeds each worker process once, so that a sample's augmentation depends on how many
workers there are, on the rank, and on everything drawn before: a resumed run augments
otherwise. Here each draw from the data set has a number, and the number has the seed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

_WORD = (1 << 64) - 1


def seed_of_draw(seed: int, epoch: int, place: int) -> int:
    """Return 64 well-mixed bits for one draw from the data set.

    Args:
        seed: The run's.
        epoch: Which pass through the sampler.
        place: Which draw of the pass, counted over all ranks.

    Source: the finalizer of SplitMix64 (Steele, Lea, Flood, *Fast Splittable Pseudorandom
    Number Generators*, 2014, §5), applied to one number after the other.
    """
    mixed = 0
    for number in (seed, epoch, place):
        mixed = (mixed + number + 0x9E3779B97F4A7C15) & _WORD
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _WORD
        mixed ^= mixed >> 31
    return mixed


def seed_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators of the CPU, all that pipelines draw from."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002  (pipelines use the global one)
    torch.default_generator.manual_seed(seed)


class NumberedBatches:
    """A batch sampler that gives every index the seed of its draw, and can begin anywhere.

    Batches are those of the batch sampler inside, in its order. The k-th index that rank r
    of w draws in a pass has the place k · w + r, so that samplers which deal indices out
    round-robin, as MMEngine's do, give each sample the seed that one process would.

    What is not used of a pass when a run goes on is walked through without loading data. Of
    mmdet's ``AspectRatioBatchSampler`` this asks the data set for each image's size.

    Args:
        inner: The batch sampler.
        seed: The run's seed.
        rank: This process's number.
        world_size: How many processes draw from the data set.
        endless: Whether a pass is followed by the next one, for loops that count iterations.
    """

    def __init__(self, inner: Any, seed: int, rank: int, world_size: int, endless: bool) -> None:
        self.inner = inner
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._endless = endless
        self._begin = 0, 0

    def begin_at(self, epoch: int, batches: int) -> None:
        """Let the next iterator begin in this pass, after so many batches of it.

        Of an endless sampler these may be more than a pass has.
        """
        self._begin = epoch, batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield batches of pairs: the seed of the draw, the index."""
        first, skipped = self._begin
        for epoch in itertools.count(first) if self._endless else [first]:
            self._set_epoch(epoch)
            place = 0
            for batch in self.inner:
                if skipped:
                    skipped -= 1
                else:
                    yield [
                        (self._seed_at(epoch, k), index)
                        for k, index in enumerate(batch, start=place)
                    ]
                place += len(batch)
            if not place and self._endless:
                raise ValueError("the training data do not fill a batch; make batch_size smaller")

    def __len__(self) -> int:
        """Batches of a pass, as the batch sampler inside counts them."""
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        """Be what is asked about the batch sampler inside: its ``sampler``, ``batch_size``."""
        if name == "inner":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.inner, name)

    def _seed_at(self, epoch: int, k: int) -> int:
        return seed_of_draw(self._seed, epoch, k * self._world_size + self._rank)

    def _set_epoch(self, epoch: int) -> None:
        set_epoch = getattr(getattr(self.inner, "sampler", None), "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)


class SeededItems:
    """What a data set gives for the pairs of :class:`NumberedBatches`: each item by its seed.

    Args:
        dataset: The data set, with integers for indices.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __call__(self, draws: Sequence[tuple[int, int]]) -> list[Any]:
        """Return the items; in the training process its generators are as they were."""
        if get_worker_info() is not None:
            return self._items(draws)
        python, state = random.getstate(), torch.get_rng_state()
        legacy = np.random.get_state()  # noqa: NPY002
        try:
            return self._items(draws)
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
            torch.set_rng_state(state)

    def _items(self, draws: Sequence[tuple[int, int]]) -> list[Any]:
        items = []
        for seed, index in draws:
            seed_generators(seed)
            items.append(self._dataset[index])
        return items


def number_draws(
    loader: DataLoader, seed: int, rank: int, world_size: int, endless: bool
) -> NumberedBatches | None:
    """Have a training loader make each sample with the random numbers of its draw.

    Args:
        loader: The loader; it is changed in place.
        seed: The run's seed.
        rank: This process's number.
        world_size: How many processes train.
        endless: Whether its iterator is to go on after a pass.

    Returns:
        Its batch sampler, which can begin anywhere; None where there is none to number: a
        loader that does not batch, of an iterable data set, or of a plain list.
    """
    dataset = loader.dataset
    if (
        loader.batch_sampler is None
        or isinstance(dataset, IterableDataset)
        or not hasattr(dataset, "__dict__")
    ):
        return None
    batches = NumberedBatches(loader.batch_sampler, seed, rank, world_size, endless)
    # torch looks for __getitems__ on the instance, and forbids to set a batch sampler anew
    dataset.__getitems__ = SeededItems(dataset)  # type: ignore[attr-defined]
    object.__setattr__(loader, "batch_sampler", batches)
    return batches
