from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner, set_random_seed
from torch import nn

import benchmarks.pipelines.classification  # noqa: F401  registers the parts
from benchmarks.pipelines.classification.mixing import build_mixing

CONFIGS = Path(__file__).parents[2] / "configs"
DEIT = CONFIGS / "imagenet" / "deit-tiny_8xb128-300e.py"
LARGE_BATCH = CONFIGS / "imagenet" / "resnet50_large-batch_8xb1024-10e.py"
GOYAL = CONFIGS / "imagenet" / "resnet50_goyal_8xb32-90e.py"
DEMO = CONFIGS / "demo" / "resnet_digits.py"


def load(path: Path) -> Config:
    return Config.fromfile(path, import_custom_modules=False)


def test_goyal_recipe_is_the_papers() -> None:
    cfg = load(GOYAL)
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 256
    assert (cfg.train_cfg.by_epoch, cfg.train_cfg.max_epochs) == (True, 90)
    assert cfg.param_scheduler == dict(
        type="MultiStepLR", by_epoch=True, milestones=[30, 60, 80], gamma=0.1
    )
    assert [t.type for t in cfg.train_dataloader.dataset.transforms] == [
        "RandomResizedCrop",
        "RandomHorizontalFlip",
    ]
    assert cfg.custom_hooks == [dict(type="SMDHook", interval=50)]


def test_goyal_network_is_the_papers() -> None:
    network = MODELS.build(load(GOYAL).model).network
    last_gammas = [
        m.weight
        for name, m in network.named_modules()
        if name.startswith("layer") and "bn3" in name
    ]
    assert len(last_gammas) == 16
    assert all(not gamma.any() for gamma in last_gammas)
    assert network.fc.out_features == 1000


@pytest.mark.parametrize("path", [GOYAL, DEMO])
def test_only_matrices_decay(path: Path) -> None:
    cfg = load(path)
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decay) == len(list(model.parameters()))
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            is_matrix = isinstance(module, nn.Conv2d | nn.Linear) and name == "weight"
            expected = cfg.optim_wrapper.optimizer.weight_decay if is_matrix else 0
            assert decay[id(weight)] == expected


def targets_of_ranks(monkeypatch: pytest.MonkeyPatch, **randomness: Any) -> list[torch.Tensor]:
    """Soft labels that each of two ranks would make of the same labels."""
    model = load(DEIT).model
    mixing = build_mixing(model.num_classes, model.mixing)
    targets = []
    for rank in range(2):
        monkeypatch.setattr("mmengine.runner.utils.get_rank", lambda rank=rank: rank)
        set_random_seed(**randomness)
        targets.append(mixing(torch.zeros(4, 3, 8, 8), torch.arange(4))[1])
    return targets


def test_ranks_mix_by_shares_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = targets_of_ranks(monkeypatch, **load(DEIT).randomness)
    assert not torch.equal(one, other)
    one, other = targets_of_ranks(monkeypatch, seed=0)  # a control
    assert torch.equal(one, other)


def saved_for_backward(images: int) -> int:
    """Bytes that autograd keeps of one forward pass of ResNet-50, weights left out."""
    model = MODELS.build(load(LARGE_BATCH).model)
    own = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(images, 3, 224, 224), torch.zeros(images, dtype=torch.long), mode="loss")
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("half", [False, True])
def test_the_large_batch_says_what_memory_it_takes(half: bool) -> None:
    cfg, gib = load(LARGE_BATCH), 2**30
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        per_image = (saved_for_backward(3) - saved_for_backward(1)) / 2
    text = " ".join(LARGE_BATCH.read_text().replace("\n# ", " ").split())
    stated = re.search(r"images take (\d+) GiB on each GPU in float32 and (\d+) in half", text)
    assert stated
    assert int(stated[1 + half]) == round(per_image * cfg.train_dataloader.batch_size / gib)


def test_users_data_root_reaches_both_splits() -> None:
    cfg = load(GOYAL)
    assert "data_root" not in cfg  # an override of it would reach neither
    cfg.merge_from_dict(
        {"train_dataloader.dataset.data_root": "a", "val_dataloader.dataset.data_root": "b"}
    )
    assert cfg.train_dataloader.dataset.data_root == "a"
    assert cfg.val_dataloader.dataset.data_root == "b"


def test_demo_stages_last_long_enough_in_relaxation_times() -> None:
    cfg = load(DEMO)
    optimizer, schedule = cfg.optim_wrapper.optimizer, cfg.param_scheduler
    tau = (1 - optimizer.momentum) / (4 * optimizer.lr * optimizer.weight_decay)
    (drop,) = schedule.milestones
    assert tau >= 50 or math.isclose(tau, 50)
    assert drop / tau >= 10
    assert (cfg.train_cfg.max_iters - drop) / (tau / schedule.gamma) >= 4.4
    # above this the momentum buffer oscillates and the norm law of SGDM no longer holds
    limit = (1 - math.sqrt(optimizer.momentum)) ** 2
    assert optimizer.lr * optimizer.weight_decay < limit


def test_demo_trains_on_noisy_and_validates_on_clean_labels() -> None:
    cfg = load(DEMO)
    assert cfg.train_dataloader.dataset.label_noise == 0.5
    assert "label_noise" not in cfg.val_dataloader.dataset


def test_rescaled_demo_differs_by_one_hook() -> None:
    plain, rescaled = load(DEMO), load(DEMO.with_stem("resnet_digits_rescaled"))
    plain.custom_hooks.append(dict(type="EquilibriumRescaleHook"))
    assert plain.to_dict() == rescaled.to_dict()


def test_demo_network_has_nine_convs() -> None:
    model = MODELS.build(load(DEMO).model)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 9
    assert model.network(torch.zeros(2, 1, 14, 14)).shape == (2, 10)


def link_some(source: Path, target: Path, per_class: int) -> None:
    for class_folder in source.iterdir():
        (target / class_folder.name).mkdir(parents=True)
        for image in sorted(class_folder.iterdir())[:per_class]:
            (target / class_folder.name / image.name).symlink_to(image)


@pytest.mark.slow
def test_goyal_config_trains_and_validates_on_real_photos(
    shared_data: Path, tmp_path: Path
) -> None:
    link_some(shared_data / "imagenette128" / "train", tmp_path / "train", per_class=1)
    link_some(shared_data / "imagenette128" / "val", tmp_path / "val", per_class=1)
    cfg = load(GOYAL)
    cfg.merge_from_dict(
        {
            "train_dataloader.batch_size": 5,
            "train_cfg.max_epochs": 1,
            "custom_hooks": [],
            "work_dir": str(tmp_path / "work"),
        }
    )
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(tmp_path)
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    batch = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert batch["inputs"].shape == (3, 224, 224)
    history = runner.message_hub.log_scalars
    assert math.isfinite(history["train/loss"].current())
    assert 0 <= history["val/accuracy/top1"].current() <= history["val/accuracy/top5"].current()
    assert history["val/val/loss"].current() == pytest.approx(math.log(1000), rel=0.2)
