"""The optimizers as MMEngine builds them from a config: names, groups, rates, accumulation."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from mmengine.optim import build_optim_wrapper

from smd_hooks import load_runs
from smd_hooks.theory import lion_ar_constant
from tests.conftest import ROOT
from tests.hooks.runs import TinyModel, tiny_data, tiny_runner

NAMES = ("LionA", "LionAR", "RotationalAdamW", "RotationalLion", "RotationalSGD")
ROTATIONAL = NAMES[1:]
MEASURED = [{"type": "SMDHook", "interval": 1}]


def built(model: TinyModel, kind: str, paramwise_cfg: Any = None, **options: Any) -> Any:
    optimizer = {"type": kind, "lr": 0.01, "weight_decay": 0.1, **options}
    cfg = {"type": "OptimWrapper", "optimizer": optimizer}
    if paramwise_cfg is not None:
        cfg["paramwise_cfg"] = paramwise_cfg
    return build_optim_wrapper(model, cfg)


def changes_of_norms(model: TinyModel, wrapper: Any, steps: int = 10) -> dict[str, float]:
    """Largest relative change of a matrix's row norms in some steps."""
    matrices = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    before = {name: p.detach().flatten(1).norm(dim=1) for name, p in matrices.items()}
    for start in range(steps):
        images, labels = zip(*tiny_data()[4 * start : 4 * start + 4], strict=True)
        wrapper.update_params(model(torch.stack(images), torch.stack(labels), mode="loss")["loss"])
    return {
        name: float((p.detach().flatten(1).norm(dim=1) / before[name] - 1).abs().max())
        for name, p in matrices.items()
    }


@pytest.mark.parametrize("kind", ROTATIONAL)
def test_by_default_all_matrices_turn(kind: str) -> None:
    model = TinyModel()
    wrapper = built(model, kind)
    assert len(wrapper.optimizer.param_groups) == 1
    assert max(changes_of_norms(model, wrapper).values()) < 1e-6


@pytest.mark.parametrize("kind", ROTATIONAL)
def test_custom_keys_opt_out_and_norms_do_not_decay(kind: str) -> None:
    model = TinyModel()
    wrapper = built(
        model, kind, {"custom_keys": {"fc": {"rotational": False}}, "norm_decay_mult": 0}
    )
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {names[id(g["params"][0])]: g for g in wrapper.optimizer.param_groups}
    assert len(groups) == len(names)  # MMEngine makes a group of each parameter
    flags = {name: (group["rotational"], group["weight_decay"]) for name, group in groups.items()}
    assert flags == {
        "conv.weight": (None, 0.1),
        "bn.weight": (None, 0),
        "bn.bias": (None, 0),
        "fc.weight": (False, 0.1),
        "fc.bias": (False, 0.1),
    }
    changes = changes_of_norms(model, wrapper)
    assert changes["conv.weight"] < 1e-6
    assert changes["fc.weight"] > 1e-3


def test_custom_keys_set_the_options_of_some_layers() -> None:
    model = TinyModel()
    keys = {"fc": {"angle": 0.02, "per_neuron": False}, "conv": {"angle": 0.03}}
    optimizer = built(model, "LionAR", {"custom_keys": keys}, weight_decay=0.0).optimizer
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    images, labels = zip(*tiny_data()[:4], strict=True)
    model(torch.stack(images), torch.stack(labels), mode="loss")["loss"].backward()
    optimizer.step()
    cosine = torch.nn.functional.cosine_similarity
    for rows, angle in ((model.fc.weight.reshape(1, -1), 0.02), (model.conv.weight, 0.03)):
        (name,) = (n for n, p in model.named_parameters() if p.numel() == rows.numel())
        after, origin = (t.detach().double().flatten(1) for t in (rows, before[name]))
        found = cosine(after, origin.reshape(after.shape)).arccos()
        assert found.numpy() == pytest.approx(angle, rel=1e-4)


LAUNCH = """
from mmengine.config import Config
{before}
from mmengine.optim import build_optim_wrapper
from torch import nn
for kind in {kinds}:
    optimizer = dict(type=kind, lr=0.01, weight_decay=0.1)
    wrapper = build_optim_wrapper(nn.Linear(3, 3), dict(optimizer=optimizer))
    print(type(wrapper.optimizer).__name__)
"""
IMPORTED = """
open("cfg.py", "w").write('custom_imports = dict(imports=["smd_hooks"])')
Config.fromfile("cfg.py")
"""


@pytest.mark.parametrize(
    ("before", "prefix", "works"),
    [(IMPORTED, "", True), ("", "smd_hooks.", True), ("", "", False)],
    ids=["custom_imports", "full name", "control: short name alone"],
)
def test_each_has_its_name_in_configs(
    tmp_path: Path, before: str, prefix: str, works: bool
) -> None:
    kinds = [prefix + name for name in NAMES]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH.format(before=before, kinds=kinds)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment(), "OMP_NUM_THREADS": "1"},
    )
    if works:
        assert done.returncode == 0, done.stderr
        assert tuple(done.stdout.split()[-5:]) == NAMES
    else:
        assert done.returncode != 0


def environment() -> dict[str, str]:
    """Ours, with this checkout on the path, behind what is there already."""
    path = [entry for entry in (os.environ.get("PYTHONPATH"), str(ROOT)) if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def measured_angles(folder: Path) -> pd.Series:
    (run,) = load_runs(folder)
    index = run.weights["parameter"].tolist().index("conv.weight")
    return run.samples[run.samples["weight"] == index]["angular_update"]


def lion_ar(model: TinyModel) -> Any:
    return built(model, "LionAR").optimizer


@pytest.mark.parametrize("enable", [True, False])
def test_a_scaled_learning_rate_counts_as_the_peak(tmp_path: Path, enable: bool) -> None:
    """``--auto-scale-lr``: 4 images where the config's rate is for 1."""
    scaling = {"base_batch_size": 1, "enable": enable}
    tiny_runner(tmp_path, MEASURED, 10, lion_ar, milestones=(5,), auto_scale_lr=scaling).train()
    angles = measured_angles(tmp_path)
    lr = 0.04 if enable else 0.01
    expected = lion_ar_constant(0.9) * math.sqrt(lr * 0.1)
    assert angles[:5].to_numpy() == pytest.approx(expected, rel=1e-3)
    assert angles[5:].to_numpy() == pytest.approx(expected / 10, rel=1e-3)


def test_accumulated_gradients_are_one_step(tmp_path: Path) -> None:
    runner = tiny_runner(tmp_path, MEASURED, 12, lion_ar, accumulation=4)
    runner.train()
    angles = measured_angles(tmp_path)
    assert len(angles) == 3
    expected = lion_ar_constant(0.9) * math.sqrt(0.01 * 0.1)
    assert angles.to_numpy() == pytest.approx(expected, rel=1e-3)
    state = runner.optim_wrapper.optimizer.state
    assert {int(entry["step"]) for entry in state.values()} == {3}
