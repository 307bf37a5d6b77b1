"""Bad input: one clear line, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.pipelines.demo_data.digits import write_digits
from benchmarks.pipelines.demo_data.scenes import write_scenes
from tests.conftest import ROOT

DIGITS = str(ROOT / "configs" / "demo" / "resnet_digits.py")
SCENES = str(ROOT / "configs" / "demo" / "mask-rcnn_digits.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo_data")
    write_digits(folder)
    write_scenes(folder)
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where configs find no data by themselves, so that nothing else is touched."""
    monkeypatch.chdir(tmp_path)


def with_digits(data: Path) -> list[str]:
    root = data / "mnist_5k"
    return [f"{split}_dataloader.dataset.data_root={root}" for split in ("train", "val")]


def with_scenes(data: Path, **changes: str) -> list[str]:
    root = data / "digit_scenes"
    options = {f"{split}_dataloader.dataset.data_root": f"{root}/" for split in ("train", "val")}
    options["val_evaluator.ann_file"] = f"{root}/annotations/instances_val.json"
    return [f"{key}={value}" for key, value in {**options, **changes}.items()]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused; return its line."""
    before = sorted(Path().rglob("*"))
    assert main(["run", *arguments]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in captured.err + captured.out
    assert sorted(Path().rglob("*")) == before
    return lines[0]


def test_a_missing_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert "config nowhere.py does not exist" in refused(capsys, "nowhere.py")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model = dict(", "does not load: "),
        ("_base_ = 'missing.py'", "does not load: "),
        ("a = 1", "has no 'model'"),
    ],
)
def test_a_config_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    Path("config.py").write_text(text)
    assert says in refused(capsys, "config.py")


@pytest.mark.parametrize("config", [DIGITS, SCENES])
def test_a_missing_data_root(capsys: pytest.CaptureFixture[str], config: str) -> None:
    line = refused(capsys, config)
    assert "data root data/demo/" in line
    assert "train_dataloader.dataset.data_root" in line


def test_a_missing_annotation_file(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    options = with_scenes(data, **{"train_dataloader.dataset.ann_file": "annotations/none.json"})
    line = refused(capsys, SCENES, "--cfg-options", *options)
    assert "annotations/none.json is missing" in line


@pytest.mark.parametrize(
    "content", ["<annotation/>", json.dumps([{"image_id": 1}]), json.dumps({"shapes": []})]
)
def test_an_annotation_file_of_another_format(
    capsys: pytest.CaptureFixture[str], data: Path, content: str
) -> None:
    Path("labels.json").write_text(content)
    options = with_scenes(
        data, **{"train_dataloader.dataset.ann_file": str(Path("labels.json").absolute())}
    )
    line = refused(capsys, SCENES, "--cfg-options", *options)
    assert "labels.json" in line
    assert "give a COCO instances file" in line


def test_an_unknown_hook_option(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    options = [*with_digits(data), "custom_hooks.0.intervall=5"]
    line = refused(capsys, DIGITS, "--cfg-options", *options)
    assert "SMDHook: unknown option 'intervall' (did you mean 'interval'?)" in line


def test_an_option_of_another_hook(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    options = [*with_digits(data), "default_hooks.logger.intervalls=5"]
    line = refused(capsys, DIGITS, "--cfg-options", *options)
    assert "LoggerHook: unknown option 'intervalls'" in line


def test_an_unusable_hook_option(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    options = [*with_digits(data), "custom_hooks.0.interval=0"]
    assert "SMDHook: interval must be" in refused(capsys, DIGITS, "--cfg-options", *options)


def test_an_unknown_hook(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    options = [*with_digits(data), "custom_hooks.0.type=SMDHok"]
    line = refused(capsys, DIGITS, "--cfg-options", *options)
    assert "hook 'SMDHok' is not registered (did you mean 'SMDHook'?)" in line


@pytest.mark.parametrize("work_dir", ["file", "file/below/it"])
def test_a_work_dir_where_a_file_stands(
    capsys: pytest.CaptureFixture[str], data: Path, work_dir: str
) -> None:
    Path("file").write_text("precious")
    options = with_digits(data)
    line = refused(capsys, DIGITS, "--work-dir", work_dir, "--cfg-options", *options)
    assert "file is a file, not a folder" in line
    assert Path("file").read_text() == "precious"


@pytest.mark.skipif(torch.cuda.is_available(), reason="mixed precision works on a GPU")
def test_amp_without_a_gpu(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    line = refused(capsys, DIGITS, "--amp", "--cfg-options", *with_digits(data))
    assert "mixed precision (--amp, AmpOptimWrapper) needs a GPU" in line


def test_a_launcher_without_its_environment(
    capsys: pytest.CaptureFixture[str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    line = refused(capsys, DIGITS, "--launcher", "pytorch", "--cfg-options", *with_digits(data))
    assert "start it with torchrun" in line


def test_scaling_without_a_base_batch_size(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    line = refused(capsys, DIGITS, "--auto-scale-lr", "--cfg-options", *with_digits(data))
    assert "auto_scale_lr.base_batch_size" in line


def test_a_model_that_cannot_be_built(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    """Only the Runner can find this; it is still one line and exit code 2."""
    options = [*with_digits(data), "model.type=NoSuchModel"]
    code = main(["run", DIGITS, "--work-dir", str(tmp_path / "w"), "--cfg-options", *options])
    assert code == 2
    assert "NoSuchModel" in capsys.readouterr().err


def test_leaf_datasets_are_found_inside_wrappers() -> None:
    from benchmarks.preflight import leaf_datasets

    leaf: dict[str, Any] = {"type": "A"}
    wrapped = {"type": "Concat", "datasets": [leaf, {"type": "Repeat", "dataset": leaf}]}
    assert list(leaf_datasets(wrapped)) == [leaf, leaf]
