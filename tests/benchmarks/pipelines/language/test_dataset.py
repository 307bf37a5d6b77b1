from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader

from benchmarks.errors import UsageError
from benchmarks.launch.draws import number_draws
from benchmarks.pipelines.language import TokenFileDataset
from benchmarks.pipelines.language.token_files import Meta, write_meta
from tests.benchmarks.pipelines.language.token_folders import tokens_of, write_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


def build(root: Path, split: str = "val", block_size: int = 8, **options: Any) -> TokenFileDataset:
    config = dict(type="TokenFileDataset", data_root=str(root), split=split, block_size=block_size)
    dataset = DATASETS.build({**config, **options})
    assert isinstance(dataset, TokenFileDataset)
    return dataset


@pytest.mark.parametrize(("block_size", "fit"), [(8, 7), (10, 6), (60, 1)])
def test_validation_windows_lie_beside_each_other(root: Path, block_size: int, fit: int) -> None:
    dataset, tokens = build(root, block_size=block_size), tokens_of(root, "val")
    assert len(dataset) == fit
    for index, item in enumerate(dataset[i] for i in range(fit)):
        begin = index * block_size
        assert item["inputs"].dtype == item["targets"].dtype == torch.int64
        assert np.array_equal(item["inputs"], tokens[begin : begin + block_size])
        assert np.array_equal(item["targets"], tokens[begin + 1 : begin + 1 + block_size])
    with pytest.raises(IndexError):
        dataset[fit]


def test_windows_are_at_most_as_many_as_asked_for(root: Path) -> None:
    assert len(build(root, windows=3)) == 3
    assert len(build(root, windows=30)) == 7


def test_training_windows_are_anywhere(root: Path) -> None:
    dataset, tokens = build(root, "train"), tokens_of(root, "train")
    possible = {tuple(tokens[k : k + 9].tolist()): k for k in range(200 - 8)}
    torch.manual_seed(0)
    begins = set()
    for _ in range(3000):
        item = dataset[0]
        assert torch.equal(item["inputs"][1:], item["targets"][:-1])
        begins.add(possible[(*item["inputs"].tolist(), int(item["targets"][-1]))])
    assert begins == set(range(200 - 8))  # first and last, too


def test_a_draw_is_that_of_its_seed(root: Path) -> None:
    dataset = build(root, "train")
    torch.manual_seed(3)
    first = dataset[0]["inputs"]
    torch.manual_seed(3)
    assert torch.equal(dataset[5]["inputs"], first)
    assert not torch.equal(dataset[5]["inputs"], first)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_launcher_draws_the_same_whoever_loads(root: Path, workers: int) -> None:
    def drawn(workers: int) -> torch.Tensor:
        loader = DataLoader(build(root, "train"), 4, num_workers=workers)
        batches = number_draws(loader, seed=7, rank=0, world_size=1, endless=False)
        assert batches is not None
        batches.begin_at(0, 0)
        return torch.cat([batch["inputs"] for batch in loader])

    torch.manual_seed(workers)
    assert torch.equal(drawn(workers), drawn(1))


def test_a_copy_maps_the_file_anew(root: Path) -> None:
    dataset = build(root, block_size=60)
    copied = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 1000
    assert torch.equal(copied[0]["inputs"], dataset[0]["inputs"])
    assert isinstance(copied.tokens, np.memmap)


def test_it_says_what_its_tokens_mean(root: Path) -> None:
    assert build(root).metainfo == {}  # nanoGPT's do not say
    write_meta(root, Meta("characters", 3, "abc"))
    wanted = dict(encoding="characters", vocab_size=3, characters="abc")
    assert build(root).metainfo == wanted


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(split="test"), "dataset.split='test' is none of train, val"),
        (dict(block_size=0), "dataset.block_size=0 is no number of them"),
        (dict(windows=0), "dataset.windows=0 is no number of them"),
        (dict(block_size=61), "holds 61 tokens, fewer than the 62 of one window"),
    ],
)
def test_unusable_options_are_one_line(root: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(root, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
