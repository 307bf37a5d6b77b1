from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from torchvision.datasets import CIFAR10

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification import Cifar10Dataset
from benchmarks.pipelines.classification.cifar10 import check_dataset
from tests.benchmarks.pipelines.classification.cifar_files import write_cifar


def config(root: Path, **options: Any) -> dict[str, Any]:
    return dict(type="Cifar10Dataset", data_root=str(root), split="train", transforms=[], **options)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    return write_cifar(tmp_path, monkeypatch)


def test_images_and_labels_are_the_files(tmp_path: Path, images: np.ndarray) -> None:
    dataset = DATASETS.build(config(tmp_path))
    assert isinstance(dataset, Cifar10Dataset)
    assert len(dataset) == 20
    assert dataset.metainfo["classes"][:2] == ("class0", "class1")
    for index, image in enumerate(images):
        sample = dataset[index]
        assert type(sample["inputs"]) is torch.Tensor
        assert torch.equal(sample["inputs"], torch.from_numpy(image))
        assert sample["label"] == index % 10


def test_validation_has_images_of_its_own(tmp_path: Path, images: np.ndarray) -> None:
    dataset = DATASETS.build(config(tmp_path) | dict(split="val"))
    assert len(dataset) == 4
    assert not any(np.array_equal(dataset[0]["inputs"].numpy(), image) for image in images)


def test_they_are_torchvisions_own_in_order(tmp_path: Path, images: np.ndarray) -> None:
    theirs = CIFAR10(str(tmp_path), train=True)
    dataset = DATASETS.build(config(tmp_path))
    for index in range(len(theirs)):
        image, label = theirs[index]
        ours = dataset[index]
        assert np.array_equal(np.asarray(image), ours["inputs"].permute(1, 2, 0).numpy())
        assert label == ours["label"]


def test_augmented_images_are_shifted_and_mirrored(tmp_path: Path, images: np.ndarray) -> None:
    steps = [dict(type="RandomCrop", size=32, padding=4), dict(type="RandomHorizontalFlip")]
    dataset = DATASETS.build(config(tmp_path) | dict(transforms=steps))
    padded = np.pad(images[0], ((0, 0), (4, 4), (4, 4)))
    possible = {
        padded[:, y : y + 32, x : x + 32][:, :, ::step].tobytes()
        for y in range(9)
        for x in range(9)
        for step in (1, -1)
    }
    torch.manual_seed(0)
    drawn = {dataset[0]["inputs"].numpy().tobytes() for _ in range(300)}
    assert drawn <= possible
    assert len(drawn) > len(possible) / 2
    assert torch.equal(dataset.images[0], torch.from_numpy(images[0]))


def test_label_noise_is_drawn_anew_each_time(tmp_path: Path, images: np.ndarray) -> None:
    dataset = DATASETS.build(config(tmp_path, label_noise=0.5))
    torch.manual_seed(0)
    wrong = sum(dataset[3]["label"] != 3 for _ in range(400)) / 400
    assert wrong == pytest.approx(0.45, abs=0.08)  # a redrawn label may be the old one


def refused(dataset_cfg: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        check_dataset(dataset_cfg)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_usable_config_passes(tmp_path: Path, images: np.ndarray) -> None:
    check_dataset(config(tmp_path))


def test_missing_data_say_how_to_get_them(tmp_path: Path) -> None:
    line = refused(config(tmp_path / "nowhere"))
    assert "has no folder 'cifar-10-batches-py'" in line
    assert f"CIFAR10('{tmp_path / 'nowhere'}', download=True)" in line


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("broken", [True, False])
def test_broken_or_absent_files_are_named_by_folder(
    tmp_path: Path, images: np.ndarray, name: str, broken: bool
) -> None:
    file = tmp_path / CIFAR10.base_folder / name
    file.write_bytes(b"half a download") if broken else file.unlink()
    line = refused(config(tmp_path))
    assert "lacks files, or their checksums are not CIFAR-10's: remove it" in line
    assert str(file.parent) in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(split="test"), "dataset.split='test' is none of train, val"),
        (dict(label_noise=2.0), "label_noise=2.0 is no probability"),
        (dict(transforms=[dict(type="RandomCrap")]), "RandomCrap"),
        (dict(noise=1), "unexpected keyword argument 'noise'; Cifar10Dataset takes data_root"),
    ],
)
def test_unusable_options_are_one_line(
    tmp_path: Path, images: np.ndarray, options: dict[str, Any], says: str
) -> None:
    assert says in refused(config(tmp_path) | options)
