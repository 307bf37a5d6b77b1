"""Bad input: one clear line, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import HOOKS

from benchmarks.__main__ import main
from benchmarks.components import check_component, type_name
from benchmarks.errors import UsageError
from benchmarks.pipelines.classification.dataset import ImageFolderDataset
from benchmarks.pipelines.demo_data.digits import write_digits
from benchmarks.pipelines.demo_data.scenes import write_scenes
from benchmarks.pipelines.demo_data.text import write_text
from smd_hooks import SMDHook
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


def test_missing_cifar10(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, str(ROOT / "configs" / "cifar10" / "resnet18_sgdm_b128-200e.py"))
    assert "cifar-10-batches-py" in line


def test_classes_that_differ_between_splits(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    three = "dict(dataset=dict(metainfo=dict(classes=('0', '1', '2'))))"
    Path("three.py").write_text(f"_base_ = {SCENES!r}\nval_dataloader = {three}\n")
    line = refused(capsys, "three.py", "--cfg-options", *with_scenes(data))
    assert "give both the same metainfo.classes" in line


def test_class_folders_that_are_not_imagenets(
    capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    by_wnid = "train_dataloader.dataset.classes=imagenet-1k"
    line = refused(capsys, DIGITS, "--cfg-options", *with_digits(data), by_wnid)
    assert "mnist_5k/train/0 is none of ImageNet's 1,000 classes" in line


def test_validation_on_the_training_images(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    same = "val_dataloader.dataset.split=train"
    line = refused(capsys, DIGITS, "--cfg-options", *with_digits(data), same)
    assert "training and validation both read" in line


def test_validation_on_the_training_annotations(
    capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    train = "annotations/instances_train.json"
    options = [
        *with_scenes(data),
        f"val_dataloader.dataset.ann_file={train}",
        "val_dataloader.dataset.data_prefix.img=train/",
        f"val_evaluator.ann_file={data}/digit_scenes/{train}",
    ]
    line = refused(capsys, SCENES, "--cfg-options", *options)
    assert f"training and validation both read {train}" in line


def test_a_detectors_head_that_is_too_small(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    options = with_scenes(data, **{"model.roi_head.mask_head.num_classes": "9"})
    line = refused(capsys, SCENES, "--cfg-options", *options)
    assert "10 classes" in line
    assert "set model.roi_head.mask_head.num_classes=10" in line


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


@pytest.mark.parametrize(
    ("option", "says", "work_dir_exists"),
    [
        ("model.type=NoSuchModel", "NoSuchModel", False),
        ("optim_wrapper.optimizer.lr=-1", "Invalid learning rate", True),
        ("train_cfg.max_iters=abc", "cannot be built", False),
        ("train_dataloader.batchsize=3", "batchsize", True),
    ],
)
def test_what_only_the_runner_can_find_leaves_nothing_behind_either(
    data: Path, option: str, says: str, work_dir_exists: bool
) -> None:
    """In a process of its own: MMEngine keeps loggers and visualizers of the same second."""
    if work_dir_exists:
        Path("runs/w").mkdir(parents=True)
        Path("runs/w/precious").touch()
    before = sorted(Path().rglob("*"))
    command = [sys.executable, "-m", "benchmarks", "run", DIGITS, "--work-dir", "runs/w"]
    done = subprocess.run(
        [*command, "--cfg-options", *with_digits(data), option],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("param_scheduler.type=MultiStepLRR", "(did you mean 'MultiStepLR'?)"),
        ("param_scheduler.gama=0.5", "unknown option 'gama' (did you mean 'gamma'?)"),
        ("optim_wrapper.optimizer.type=SGDD", "optimizer 'SGDD' is not registered"),
        ("optim_wrapper.optimizer.momentun=0.9", "(did you mean 'momentum'?)"),
        ("default_hooks.checkpoint.intervall=3", "(did you mean 'interval'?)"),
        ("load_from=nowhere.pth", "checkpoint nowhere.pth does not exist"),
        ("model=None", "has no 'model'"),
        ("train_dataloader=3", "has no 'train_dataloader'"),
        ("train_dataloader.dataset=3", "the config's data cannot be used"),
        ("custom_hooks=3", "the config's hooks cannot be used"),
    ],
)
def test_misspelt_and_misplaced_values(
    capsys: pytest.CaptureFixture[str], data: Path, option: str, says: str
) -> None:
    assert says in refused(capsys, DIGITS, "--cfg-options", *with_digits(data), option)


def test_an_override_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", DIGITS, "--cfg-options", "foo"])
    assert caught.value.code == 2
    assert "'foo' is not of the form KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"half a checkpoint"])
def test_resuming_from_a_broken_checkpoint(
    capsys: pytest.CaptureFixture[str], data: Path, content: bytes
) -> None:
    Path("w").mkdir()
    Path("w/iter_5.pth").write_bytes(content)
    Path("w/last_checkpoint").write_text("w/iter_5.pth")
    options = with_digits(data)
    line = refused(capsys, DIGITS, "--resume", "--work-dir", "w", "--cfg-options", *options)
    assert "iter_5.pth is cut off or damaged, and no other checkpoint there is whole" in line


def test_components_of_new_style_configs_are_classes(data: Path) -> None:
    cfg = {"type": ImageFolderDataset, "data_root": "nowhere", "split": "train", "transforms": []}
    assert type_name(cfg) == "ImageFolderDataset"
    assert type_name({"type": "mmdet.CocoMetric"}) == "CocoMetric"
    with pytest.raises(UsageError, match="unknown option 'intervall'"):
        check_component({"type": SMDHook, "intervall": 1}, HOOKS, "hook")


def test_leaf_datasets_are_found_inside_wrappers() -> None:
    from benchmarks.launch.preflight import leaf_datasets

    leaf: dict[str, Any] = {"type": "A"}
    wrapped = {"type": "Concat", "datasets": [leaf, {"type": "Repeat", "dataset": leaf}]}
    assert list(leaf_datasets(wrapped)) == [leaf, leaf]


GPT = str(ROOT / "configs" / "gpt" / "gpt2-124m_adamw_8xb60-5k.py")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "python -m benchmarks prepare openwebtext -o data/openwebtext"),
        (["DATA", "model.vocab_size=70"], "vocab_size"),
        (["DATA", "model.block_size=64"], "block_size"),
    ],
)
def test_token_files_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    text = write_text(tmp_path.parent / f"{tmp_path.name}-data")
    roots = [f"{split}_dataloader.dataset.data_root={text}" for split in ("train", "val")]
    given = [*(roots if "DATA" in options else []), *(o for o in options if o != "DATA")]
    command = [GPT, "--cfg-options", "optim_wrapper.type=OptimWrapper", *given]
    assert words in refused(capsys, *command)
