from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification import ImageFolderDataset
from benchmarks.pipelines.classification.dataset import DRAWS_NOTHING, build_transforms
from benchmarks.pipelines.demo_data.digits import write_digits

CLASSES = ("ant", "bee", "cat", "dog")


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in CLASSES:
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        for index, suffix in enumerate(("png", "JPEG", "webp")):
            pixels = rng.integers(256, size=(10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.{suffix}")
    return tmp_path


def build(
    data_root: Path, *transforms: dict[str, Any], noise: float = 0.0, in_memory: bool = False
) -> ImageFolderDataset:
    return ImageFolderDataset(str(data_root), "train", transforms, noise, in_memory)


def test_items_are_the_files_bytes_and_their_classes(data_root: Path) -> None:
    dataset = build(data_root)
    assert len(dataset) == 12
    assert dataset.metainfo == {"classes": CLASSES}
    assert [item["label"] for item in dataset] == sorted([0, 1, 2, 3] * 3)
    path, _ = dataset.images.samples[0]
    expected = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
    assert dataset[0]["inputs"].dtype == torch.uint8
    assert torch.equal(dataset[0]["inputs"], expected)


def test_transforms_are_torchvisions_own(data_root: Path) -> None:
    named = build(data_root, dict(type="Resize", size=8), dict(type="CenterCrop", size=6))
    reference = v2.Compose([v2.Resize(8), v2.CenterCrop(6), v2.PILToTensor()])
    image = Image.open(named.images.samples[5][0]).convert("RGB")
    assert torch.equal(named[5]["inputs"], reference(image))


def test_random_transforms_follow_torchs_seed(data_root: Path) -> None:
    dataset = build(data_root, dict(type="RandomResizedCrop", size=6))

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return dataset[0]["inputs"]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_batches_collate_to_plain_uint8_tensors(data_root: Path) -> None:
    dataset = build(data_root, dict(type="ToImage"), dict(type="RandomHorizontalFlip"))
    batch = default_collate([dataset[i] for i in range(5)])
    assert type(batch["inputs"]) is torch.Tensor
    assert batch["inputs"].shape == (5, 3, 10, 12)
    assert batch["inputs"].dtype == torch.uint8
    assert batch["label"].dtype == torch.int64


GRAYSCALE = dict(type="Grayscale")
RANDOM_CROP = dict(type="RandomCrop", size=14, padding=2)
FLIP = dict(type="RandomHorizontalFlip")
RESIZED_CROP = dict(type="RandomResizedCrop", size=8)


def batches(dataset: ImageFolderDataset) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    return list(DataLoader(dataset, batch_size=8, shuffle=True))


def are_equal(one: ImageFolderDataset, other: ImageFolderDataset) -> bool:
    pairs = zip(batches(one), batches(other), strict=True)
    return all(torch.equal(a[key], b[key]) for a, b in pairs for key in ("inputs", "label"))


@pytest.mark.parametrize(
    "transforms",
    [
        [],
        [GRAYSCALE],
        [GRAYSCALE, RANDOM_CROP, FLIP],
        [GRAYSCALE, RANDOM_CROP | dict(padding_mode="edge")],
        [GRAYSCALE, RANDOM_CROP | dict(padding_mode="reflect")],
        [GRAYSCALE, RANDOM_CROP | dict(padding_mode="symmetric")],
        [dict(type="Resize", size=9), dict(type="CenterCrop", size=8), FLIP],
        [RANDOM_CROP, dict(type="RandomVerticalFlip")],
        [RANDOM_CROP | dict(fill=7), dict(type="Pad", padding=1, fill=9), GRAYSCALE],
        [RESIZED_CROP, FLIP],
        [dict(type="ToImage"), RESIZED_CROP, FLIP],
        [GRAYSCALE, dict(type="ColorJitter", brightness=0.4), dict(type="Resize", size=7)],
    ],
)
def test_in_memory_draws_the_same_batches(
    data_root: Path, transforms: list[dict[str, Any]]
) -> None:
    kept = build(data_root, *transforms, noise=0.5, in_memory=True)
    assert are_equal(kept, build(data_root, *transforms, noise=0.5))
    # what must differ: a set that draws otherwise
    assert not are_equal(kept, build(data_root, *transforms, FLIP, noise=0.6))


def test_in_memory_digits_are_those_on_disk(tmp_path: Path) -> None:
    root = str(write_digits(tmp_path))
    transforms = [GRAYSCALE, RANDOM_CROP]
    read, kept = (ImageFolderDataset(root, "val", transforms, 0.3, keep) for keep in (False, True))
    assert are_equal(read, kept)


def test_in_memory_reads_each_file_once(data_root: Path) -> None:
    dataset = build(data_root, GRAYSCALE, RANDOM_CROP, in_memory=True)
    first = batches(dataset)
    for path, _ in dataset.images.samples:
        Path(path).unlink()
    assert all(
        torch.equal(a["inputs"], b["inputs"]) for a, b in zip(first, batches(dataset), strict=True)
    )


@pytest.mark.parametrize("transform", DRAWS_NOTHING)
def test_what_is_kept_draws_nothing(transform: type[v2.Transform]) -> None:
    options = {"padding": 2} if transform is v2.Pad else {}
    options |= {"size": 8} if transform in (v2.Resize, v2.CenterCrop) else {}
    image = Image.fromarray(np.arange(300).astype(np.uint8).reshape(10, 10, 3))
    step = v2.Compose([transform(**options), v2.PILToTensor()])
    state = torch.get_rng_state()
    assert torch.equal(step(image), step(image))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (dict(type="RandomResizedCorp", size=8), "RandomResizedCorp"),
        (dict(type="functional"), "functional"),
        (dict(size=8), "names no transform"),
        (dict(type="Resize", size=8, depth=3), "depth"),
        (dict(type="RandomResizedCrop"), "size"),
        (dict(type="RandomHorizontalFlip", p=2.0), "RandomHorizontalFlip does not take"),
    ],
)
def test_unusable_transform_is_one_line(transform: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_transforms([transform])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def labels_of_first(dataset: ImageFolderDataset, draws: int) -> list[int]:
    return [dataset[0]["label"] for _ in range(draws)]


def test_label_noise_replaces_at_its_rate_and_uniformly(data_root: Path) -> None:
    torch.manual_seed(0)
    draws, noise = 4000, 0.4
    counts = Counter(labels_of_first(build(data_root, noise=noise), draws))
    # A quarter of the replacements fall on the true class, as on any other.
    for label in (1, 2, 3):
        expected, deviation = draws * noise / 4, (draws * 0.1 * 0.9) ** 0.5
        assert abs(counts[label] - expected) < 4 * deviation
    assert sum(counts.values()) == draws


def test_label_noise_is_drawn_anew_but_follows_torchs_seed(data_root: Path) -> None:
    dataset = build(data_root, noise=0.5)
    torch.manual_seed(3)
    first, second = labels_of_first(dataset, 50), labels_of_first(dataset, 50)
    torch.manual_seed(3)
    assert labels_of_first(dataset, 50) == first
    assert first != second


def test_no_noise_leaves_labels_and_generator_alone(data_root: Path) -> None:
    state = torch.get_rng_state()
    assert set(labels_of_first(build(data_root), 50)) == {0}
    assert torch.equal(torch.get_rng_state(), state)


def test_loader_workers_draw_different_noise(data_root: Path) -> None:
    dataset = build(data_root, noise=1.0)
    loader = DataLoader(dataset, batch_size=40, sampler=[0] * 80, num_workers=2)
    torch.manual_seed(0)
    one, two = (batch["label"].tolist() for batch in loader)
    assert one != two


@pytest.mark.parametrize("noise", [-0.1, 1.5])
def test_noise_outside_zero_to_one_is_refused(data_root: Path, noise: float) -> None:
    with pytest.raises(UsageError, match="label_noise"):
        build(data_root, noise=noise)


@pytest.mark.parametrize("suffix", ["png", "JPEG", "webp"])
@pytest.mark.parametrize("kept", [0, 20, 150])
def test_broken_image_is_named_in_one_line(data_root: Path, suffix: str, kept: int) -> None:
    dataset = build(data_root)
    (index,) = [
        i for i, (p, label) in enumerate(dataset.images.samples) if p.endswith(suffix) and not label
    ]
    path = Path(dataset.images.samples[index][0])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RuntimeError) as caught:
        dataset[index]
    assert str(caught.value).startswith(f"cannot read image {path}: ")
    assert "\n" not in str(caught.value)


def test_broken_image_is_named_from_a_loader_worker(data_root: Path) -> None:
    dataset = build(data_root)
    path = Path(dataset.images.samples[0][0])
    path.write_text("no image")
    with pytest.raises(RuntimeError) as caught:
        next(iter(DataLoader(dataset, num_workers=1)))
    assert (
        str(caught.value)
        .strip()
        .splitlines()[-1]
        .startswith(f"RuntimeError: cannot read image {path}: ")
    )
