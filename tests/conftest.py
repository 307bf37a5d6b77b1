"""Fixtures that several rooms of the tests share."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors on busy machines: more threads only spin."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photos: imagenette128/, coco_small/, nuclei/; skipped where they are missing."""
    unpack = SHARED_DATA / "unpack.sh"
    if not unpack.is_file():
        pytest.skip("needs the real photos of ../shared/data, which are not here")
    folder = tmp_path_factory.mktemp("shared_data")
    subprocess.run(["bash", str(unpack), str(folder)], check=True)
    return folder
