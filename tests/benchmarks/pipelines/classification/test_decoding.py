from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.__main__ import main
from benchmarks.errors import UsageError
from benchmarks.pipelines.classification import ImageFolderDataset, ImagePreprocessor
from benchmarks.pipelines.classification.decoding import (
    DecodingPreprocessor,
    collate_encoded,
    decode,
)
from tests.conftest import ROOT

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CROP = [dict(type="CenterCrop", size=20)]
RESIZE = [dict(type="Resize", size=[17, 19])]
GRADIENT = np.add.outer(3 * np.arange(40), 2 * np.arange(48))
LEVEL = 1 / min(STD)
"""One level of 255, normalised."""


def photo(seed: int, mode: str = "RGB", height: int = 40) -> Image.Image:
    """Shades with some noise: flat areas, slopes and detail, as JPEG meets them."""
    rng = np.random.default_rng(seed)
    shades = np.stack([np.roll(GRADIENT, 5 * seed + c, axis=1) for c in range(3)], axis=-1)
    pixels = (shades + rng.integers(40, size=shades.shape)) % 256
    return Image.fromarray(pixels[:height].astype(np.uint8)).convert(mode)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for label in ("ant", "bee"):
            (tmp_path / split / label).mkdir(parents=True)
        ant, bee = tmp_path / split / "ant", tmp_path / split / "bee"
        photo(0).save(ant / "0.JPEG", quality=80)
        photo(1, height=32).save(ant / "1.png")
        photo(2).save(ant / "2.webp")
        photo(3, "L").save(bee / "3.JPEG")
        photo(4, "CMYK").save(bee / "4.JPEG")
        photo(5).save(bee / "5.png.JPEG", "PNG")  # ImageNet has one whose name lies, too
        photo(6).save(bee / "6.bmp")
    return tmp_path


def batch_of(root: Path) -> dict[str, Any]:
    dataset = ImageFolderDataset(str(root), "train", [], encoded=True)
    (batch,) = DataLoader(dataset, len(dataset), collate_fn=collate_encoded)
    return dict(batch)


def usual(root: Path, transforms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    dataset = ImageFolderDataset(str(root), "train", transforms)
    (batch,) = DataLoader(dataset, len(dataset))
    return ImagePreprocessor(MEAN, STD)(dict(batch))


def test_files_are_handed_on_as_they_are(root: Path) -> None:
    batch = batch_of(root)
    for file, path in zip(batch["inputs"], batch["path"], strict=True):
        assert bytes(file.tolist()) == Path(path).read_bytes()
    assert batch["label"].tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_pixels_are_those_of_the_usual_path(root: Path) -> None:
    ours = DecodingPreprocessor(RESIZE, CROP, MEAN, STD)(batch_of(root))
    theirs = usual(root, CROP)
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["inputs"], theirs["inputs"])
    assert torch.equal(ours["label"], theirs["label"])
    # what must differ
    flipped = usual(root, [dict(type="RandomHorizontalFlip", p=1.0), *CROP])
    assert not torch.equal(ours["inputs"], flipped["inputs"])


@pytest.mark.parametrize("suffix", ["JPEG", "png"])
def test_batches_of_one_format_only(root: Path, suffix: str) -> None:
    for path in (root / "train").glob("*/*"):
        path.unlink()
    for label in ("ant", "bee"):
        photo(0).save(root / "train" / label / f"0.{suffix}")
    ours = DecodingPreprocessor(RESIZE, CROP, MEAN, STD)(batch_of(root))
    assert torch.equal(ours["inputs"], usual(root, CROP)["inputs"])


def test_resizing_rounds_by_one_level_at_most(root: Path) -> None:
    ours = DecodingPreprocessor(RESIZE, CROP, MEAN, STD)(batch_of(root), training=True)
    difference = (ours["inputs"] - usual(root, RESIZE)["inputs"]).abs().max()
    assert difference <= 1.001 * LEVEL


def test_random_transforms_draw_as_in_a_loader(root: Path) -> None:
    crop = [dict(type="RandomCrop", size=20), dict(type="RandomHorizontalFlip")]
    torch.manual_seed(7)
    ours = DecodingPreprocessor(crop, CROP, MEAN, STD)(batch_of(root), training=True)
    dataset = ImageFolderDataset(str(root), "train", crop)
    torch.manual_seed(7)
    batch_of(root)  # a loader takes its seed from the generator, too
    images = torch.stack([dataset[i]["inputs"] for i in range(len(dataset))])
    assert torch.equal(ours["inputs"], ImagePreprocessor(MEAN, STD)({"inputs": images})["inputs"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_decodes_to_nearly_the_same_pixels(root: Path) -> None:
    batch = batch_of(root)
    for on_gpu, on_cpu in zip(
        decode(batch["inputs"], batch["path"], "cuda"),
        decode(batch["inputs"], batch["path"], "cpu"),
        strict=True,
    ):
        assert on_gpu.device.type == "cuda"
        assert (on_gpu.cpu().float() - on_cpu.float()).abs().mean() < 2


@pytest.mark.parametrize("suffix", ["JPEG", "png", "webp"])
@pytest.mark.parametrize("kept", [2, 20, 150])
def test_a_broken_file_is_named_in_one_line(root: Path, suffix: str, kept: int) -> None:
    path = next((root / "train" / "ant").glob(f"*.{suffix}"))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RuntimeError) as caught:
        DecodingPreprocessor(RESIZE, CROP, MEAN, STD)(batch_of(root))
    assert str(caught.value).startswith(f"cannot read image {path}: ")
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_named_in_one_line(root: Path) -> None:
    path = root / "train" / "ant" / "0.JPEG"
    path.write_bytes(b"")
    with pytest.raises(RuntimeError, match=f"cannot read image {path}"):
        batch_of(root)


def test_images_of_different_sizes_are_refused(root: Path) -> None:
    flip = [dict(type="RandomHorizontalFlip")]
    with pytest.raises(UsageError, match=r"train_transforms leave images of shapes \(3, 32, 48\)"):
        DecodingPreprocessor(flip, CROP, MEAN, STD)(batch_of(root), training=True)


@pytest.mark.parametrize("options", [dict(transforms=CROP), dict(transforms=[], in_memory=True)])
def test_encoded_images_are_neither_transformed_nor_kept(
    root: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="hands on files as they are"):
        ImageFolderDataset(str(root), "train", **options, encoded=True)


def test_the_docstrings_config_trains(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snippet = re.search(r"Example:\n +::\n(.*)", inspect.getdoc(DecodingPreprocessor) or "", re.S)
    assert snippet is not None
    text = textwrap.dedent(snippet[1]).replace('"./', f'"{ROOT}/configs/imagenet/')
    (tmp_path / "config.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    small = {
        "model.arch": "resnet18",
        "model.data_preprocessor.train_transforms.0.size": 32,
        "model.data_preprocessor.val_transforms.1.size": 32,
        "train_cfg.max_epochs": 1,
        "custom_hooks": [],
    }
    for split in ("train", "val"):
        small |= {
            f"{split}_dataloader.{name}": value
            for name, value in {
                "dataset.data_root": root,
                "dataset.classes": None,
                "batch_size": 4,
                "num_workers": 1,
            }.items()
        }
    options = [f"{key}={value}" for key, value in small.items()]
    assert main(["run", "config.py", "--work-dir", "run", "--cfg-options", *options]) == 0
    assert "accuracy/top1" in next((tmp_path / "run").rglob("scalars.json")).read_text()
