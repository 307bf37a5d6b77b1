from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification import ImagePreprocessor

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def test_normalises_as_torchvision_does() -> None:
    images = torch.randint(256, (5, 3, 7, 9), dtype=torch.uint8)
    batch = ImagePreprocessor(MEAN, STD)({"inputs": images, "label": torch.arange(5)})
    reference = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
        ]
    )
    torch.testing.assert_close(batch["inputs"], reference(images), rtol=1e-5, atol=1e-6)
    assert batch["inputs"].dtype == torch.float32
    assert batch["label"].tolist() == [0, 1, 2, 3, 4]


def test_leaves_the_batch_it_was_given() -> None:
    batch = {"inputs": torch.zeros(1, 3, 2, 2, dtype=torch.uint8)}
    ImagePreprocessor(MEAN, STD)(batch, training=True)
    assert batch["inputs"].dtype == torch.uint8


def test_adds_nothing_to_checkpoints() -> None:
    assert not ImagePreprocessor(MEAN, STD).state_dict()


def test_refuses_images_that_are_floats_already() -> None:
    with pytest.raises(UsageError, match="take ToDtype and Normalize out"):
        ImagePreprocessor(MEAN, STD)({"inputs": torch.zeros(1, 3, 2, 2)})


@pytest.mark.parametrize(("mean", "std"), [([1.0], [1.0, 2.0]), ([1.0, 1.0], [1.0, 0.0])])
def test_refuses_constants_that_do_not_fit(mean: list[float], std: list[float]) -> None:
    with pytest.raises(UsageError, match="one value per channel"):
        ImagePreprocessor(mean, std)
