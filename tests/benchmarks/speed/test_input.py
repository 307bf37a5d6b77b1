"""The input pipeline beside the step: what is timed, and which of the two is called slower."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.__main__ import main
from benchmarks.pipelines.classification import ImageFolderDataset
from benchmarks.pipelines.demo_data.digits import write_digits
from benchmarks.speed.input import WHAT, OneItem, Throughput, bottleneck, over, time_batches
from benchmarks.speed.stopwatch import Stopwatch
from tests.conftest import ROOT

DIGITS = str(ROOT / "configs" / "demo" / "resnet_digits.py")


def throughput(loader: float, step: float, both: float, workers: int = 4) -> Throughput:
    speeds = dict(loader=[loader], step=[step], both=[both], floor=[1e6])
    return Throughput(workers, 32, speeds)


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        (throughput(500, 1000, 480), "The input pipeline is the bottleneck (500 images/s"),
        (throughput(3000, 1000, 990), "The training step is the bottleneck (3,000 images/s"),
        (throughput(1000, 950, 900), "are equally fast (1,000 images/s"),
        (throughput(1000, 1000, 500, workers=0), "take turns in one process (num_workers=0"),
    ],
)
def test_the_slower_part_is_named(figures: Throughput, says: str) -> None:
    assert says in bottleneck(figures)
    reached = figures.median("both") / figures.median("step")
    assert f"{reached:.0%} of the step's own speed" in bottleneck(figures)


def test_only_the_batches_between_the_margins_are_timed() -> None:
    slow = {0, 1, 5, 6, 7}
    consumed: list[int] = []

    def consume(batch: int) -> None:
        consumed.append(batch)
        time.sleep(0.2 if batch in slow else 0.02)

    seconds = time_batches(iter(range(8)), consume, Stopwatch(torch.device("cpu")), 2, 3)
    assert consumed == list(range(8))
    assert 0.06 <= seconds < 0.2


def test_waiting_for_a_batch_counts() -> None:
    def source() -> Iterator[int]:
        for batch in range(4):
            time.sleep(0.1)
            yield batch

    watch = Stopwatch(torch.device("cpu"))
    assert time_batches(source(), lambda _: None, watch, 1, 2) >= 0.2


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_hands_out_the_planned_batches_as_the_configs_does(workers: int) -> None:
    def collate(items: list[tuple[torch.Tensor]]) -> list[int]:
        return [int(item[0]) for item in items]

    dataset = TensorDataset(torch.arange(10))
    loader = DataLoader(dataset, num_workers=workers, collate_fn=collate)
    assert list(over(loader, [[3, 1], [9]], dataset)) == [[3, 1], [9]]
    assert list(over(loader, [[3, 1], [9]], OneItem(dataset[4]))) == [[4, 4], [4]]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = write_digits(tmp_path_factory.mktemp("digits"))
    return ["--cfg-options", f"train_dataloader.dataset.data_root={root}"]


def timed(options: list[str], folder: Path) -> dict[str, Any]:
    output = folder / "deep" / "input.json"
    command = ["speed", "input", DIGITS, "--batches", "2", "-o", str(output), *options]
    assert main(command) == 0
    return dict(json.loads(output.read_text()))


def test_a_slow_data_set_is_the_bottleneck(
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = ImageFolderDataset.__getitem__

    def read_slowly(self: ImageFolderDataset, index: int) -> dict[str, Any]:
        time.sleep(0.004)
        return read(self, index)

    monkeypatch.setattr(ImageFolderDataset, "__getitem__", read_slowly)
    monkeypatch.chdir(tmp_path)
    figures = timed([*options, "train_dataloader.num_workers=1"], tmp_path)
    assert figures["says"].startswith("The input pipeline is the bottleneck")
    assert max(figures["items_per_second"]["loader"]) < 250
    assert set(figures["items_per_second"]) == set(WHAT)
    printed = capsys.readouterr().out
    assert printed.startswith("# The input pipeline beside the training step")
    assert figures["says"] in printed
    assert "train_dataloader.num_workers=1" in printed
    assert sorted(tmp_path.iterdir()) == [tmp_path / "deep"]  # no work dir, no log


def test_unusable_input_is_one_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", "input", "nowhere.py"]) == 2
    assert "config nowhere.py does not exist" in capsys.readouterr().err
    assert main(["speed", "input", DIGITS, "--batches", "0"]) == 2
    assert "--batches 0: give 1 or more" in capsys.readouterr().err
    assert main(["speed", "input", DIGITS, *options, "train_dataloader.dataset.split=trian"]) == 2
    assert "has no folder 'trian'" in capsys.readouterr().err
