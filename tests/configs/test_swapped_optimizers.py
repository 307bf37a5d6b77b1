"""The README's one-line swaps, trained on real photos: norms stay, and every row turns as set."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor
from torch.optim import Optimizer

import benchmarks.pipelines.classification
import benchmarks.pipelines.detection  # noqa: F401
from smd_hooks import load_runs
from smd_hooks.analysis import agreement_table
from smd_hooks.optim import LionAR
from tests.conftest import ROOT
from tests.test_readme import block


class RowsWatched:
    """Follows each row of each rotational weight through an optimizer's steps."""

    def __init__(self, optimizer: LionAR) -> None:
        self.off_angle: dict[Tensor, float] = defaultdict(float)
        """Largest relative distance of a row's angle from the set one, by weight."""
        self.off_norm: dict[Tensor, float] = defaultdict(float)
        """The same of its norm from the one at the first step."""
        self.still = 0
        """Rows, over all steps, that had never had a gradient: they have nothing to follow."""
        self.turned = 0
        """The others, over all steps."""
        self._norms: dict[Tensor, Tensor] = {}
        self._before: dict[Tensor, Tensor] = {}
        optimizer.register_step_pre_hook(self._look)
        optimizer.register_step_post_hook(self._compare)

    def _look(self, optimizer: Optimizer, *_: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._before = {p: rows(p) for p in parameters if p.grad is not None and p.ndim > 1}

    def _compare(self, optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            peak, decay, beta = group["initial_lr"], group["weight_decay"], group["beta"]
            asked = math.sqrt(2 * peak * decay * (1 - beta) / (1 + beta)) * group["lr"] / peak
            for p in filter(self._before.__contains__, group["params"]):
                before, after = self._before[p], rows(p)
                norm = self._norms.setdefault(p, before.norm(dim=1))
                directions = before / before.norm(dim=1, keepdim=True)
                chord = (after / after.norm(dim=1, keepdim=True) - directions).norm(dim=1)
                moves = rows(optimizer.state[p]["exp_avg"]).any(dim=1)
                self.still += int((~moves).sum())
                self.turned += int(moves.sum())
                off = (2 * torch.asin(chord / 2) / asked - 1)[moves].abs()
                self.off_angle[p] = max([self.off_angle[p], *off.tolist()])
                off = (after.norm(dim=1) / norm - 1).abs()
                self.off_norm[p] = max(self.off_norm[p], float(off.max()))


def rows(tensor: Tensor) -> Tensor:
    return tensor.detach().double().flatten(1)


def trained(folder: Path, text: str, options: dict[str, Any]) -> tuple[Runner, RowsWatched]:
    """Train what a file with this text says, without validation; check that losses are finite."""
    (folder / "mine.py").write_text(text)
    cfg = Config.fromfile(folder / "mine.py")
    for split in ("val", "test"):
        for part in ("cfg", "dataloader", "evaluator"):
            cfg.pop(f"{split}_{part}", None)
    cfg.merge_from_dict({"work_dir": str(folder / "run")} | options)
    runner = Runner.from_cfg(cfg)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    optimizer = runner.optim_wrapper.optimizer
    assert type(optimizer) is LionAR
    watched = RowsWatched(optimizer)
    runner.train()
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert len(losses) == runner.iter == runner.max_iters
    assert all(map(math.isfinite, losses))
    return runner, watched


@pytest.mark.parametrize("per_neuron", [True, False])
def test_whole_tensors_that_turn_are_told_from_rows_that_do(per_neuron: bool) -> None:
    """The control: what the checks below look for is not there when units are no rows."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(20, 8, bias=False)
    optimizer = LionAR(layer.parameters(), lr=1e-3, weight_decay=0.1, per_neuron=per_neuron)
    optimizer.param_groups[0]["initial_lr"] = 1e-3
    watched = RowsWatched(optimizer)
    for _ in range(10):
        layer.weight.grad = torch.randn(8, 20)
        optimizer.step()
    assert (watched.off_norm[layer.weight] < 1e-6) is per_neuron
    assert (watched.off_angle[layer.weight] < 1e-3) is per_neuron
    assert (watched.turned, watched.still) == (80, 0)


@pytest.mark.slow
def test_a_stock_mmdet_config(tmp_path: Path, shared_data: Path) -> None:
    root = shared_data / "coco_small"
    options = {
        "train_dataloader.dataset.data_root": f"{root}/",
        "train_dataloader.dataset.indices": 10,
        "train_dataloader.dataset.pipeline.2.scale": (160, 128),
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
        "train_cfg.max_epochs": 1,
        "model.backbone.init_cfg": None,
        # the warmup's first angles are so small that rounding would be seen beside them
        "param_scheduler.0.start_factor": 0.5,
    }
    runner, watched = trained(tmp_path, block("mmdet::mask_rcnn", "LionAR"), options)
    trained_matrices = [p for p in runner.model.parameters() if p.ndim > 1 and p.requires_grad]
    assert watched.off_norm.keys() == set(trained_matrices)
    assert max(watched.off_norm.values()) < 1e-6
    assert max(watched.off_angle.values()) < 1e-3
    # of classes that are on none of these photos, and of ReLUs that never fire in these few steps
    assert 0 < watched.still < watched.turned


@pytest.mark.slow
def test_the_imagenet_config(tmp_path: Path, shared_data: Path) -> None:
    root = str(shared_data / "imagenette128")
    options = {
        "train_dataloader.dataset.data_root": root,
        "train_dataloader.dataset.transforms.0.size": 64,
        "train_dataloader.batch_size": 16,
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
        "train_dataloader.pin_memory": False,
        "train_dataloader.sampler.type": "InfiniteSampler",
        "train_cfg": {"_delete_": True, "by_epoch": False, "max_iters": 12},
        "custom_hooks.0.interval": 1,
    }
    text = block("configs/imagenet/resnet50_goyal").replace('"configs/', f'"{ROOT}/configs/')
    runner, watched = trained(tmp_path, text, options)
    assert max(watched.off_norm.values()) < 1e-6
    assert max(watched.off_angle.values()) < 1e-3
    # residual branches, whose last gain begins at 0, have no gradient before it moved
    branches = [
        p for name, p in runner.model.named_parameters() if ".conv" in name and ".layer" in name
    ]
    assert watched.still == sum(len(p) for p in branches)
    (run,) = load_runs(tmp_path / "run")
    (row,) = agreement_table([run]).to_dict("records")
    assert (row["optimizer"], row["si_params"]) == ("LionAR", "53/54")
    assert row["norm_ratio"] == pytest.approx(1, abs=1e-6)
    moved = run.predicted[run.predicted["gradient_norm"] > 0]
    assert moved["parameter"].nunique() == 53
    ratio = moved["angular_update"] / moved["equilibrium_angle"]
    assert ratio.to_numpy() == pytest.approx(1, abs=1e-3)
