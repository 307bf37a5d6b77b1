"""Suites of configs that hold the least that a config must, and trainings that only say so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from benchmarks.engines.training import Training, write_plan
from benchmarks.launch.finite_loss_hook import NOT_FINITE
from benchmarks.sweep import command
from benchmarks.sweep.suite import Suite, load_suite
from smd_hooks.records import RunState, write_state
from smd_hooks.records.schema import FOLDER, STATE_FILE, write_json
from tests.analysis.work_dirs import launch

CONFIG = """
model = dict(type="Net")
train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(type="Things"))
train_cfg = dict(by_epoch=False, max_iters={steps})
optim_wrapper = dict(optimizer=dict(type="SGD", lr={lr}, weight_decay=1e-4))
"""


def write_config(folder: Path, name: str, lr: float = 0.1, steps: int = 10) -> str:
    path = folder / f"{name}.py"
    path.write_text(CONFIG.format(lr=lr, steps=steps))
    return str(path)


def experiment(folder: Path, name: str = "first", **changes: Any) -> dict[str, Any]:
    """Two roles, two seeds."""
    runs = {role: write_config(folder, f"{name}_{role}") for role in ("plain", "other")}
    return {"id": name, "figure": "Fig. 1", "runs": runs, "seeds": [0, 1], **changes}


def write_suite_file(folder: Path, *experiments: Mapping[str, Any], **others: Any) -> Path:
    content = {"paper": "A paper", "experiments": list(experiments), **others}
    path = folder / "suite.py"
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in content.items()))
    return path


def suite_of(folder: Path, *experiments: Mapping[str, Any]) -> Suite:
    return load_suite(write_suite_file(folder, *experiments))


class FakeTrainings:
    """Stands for ``benchmarks.engines.local.train``: every run ends at once, as it is told to.

    Attributes:
        best: The learning rate with the best accuracy.
        ends: How runs end, by a part of their name: ``diverged``, ``killed``, ``broken``; or not
            at all, ``alive``.
        batches: Names of the runs of each call.
        launched: What they were launched with.
    """

    def __init__(self, best: float = 0.1, ends: Mapping[str, str] | None = None) -> None:
        self.best, self.ends = best, dict(ends or {})
        self.batches: list[list[str]] = []
        self.launched: dict[str, Training] = {}

    def __call__(
        self,
        trainings: Sequence[Training],
        jobs: int | None = None,
        gpus: Sequence[str] = (),
        retries: int = 0,
    ) -> list[Training]:
        write_plan(trainings)
        self.batches.append([training.name for training in trainings])
        for training in trainings:
            self.launched[training.name] = training
            ends = [how for part, how in self.ends.items() if part in training.name]
            self._end(training, ends[0] if ends else "finished")
        return []

    def _end(self, training: Training, how: str) -> None:
        config = Config.fromfile(training.config)
        options = list(training.options)
        if "--cfg-options" in options:
            given = options[options.index("--cfg-options") + 1 :]
            config.merge_from_dict({k: float(v) for k, v in (o.split("=") for o in given)})
        if "--seed" in options:
            config.randomness = {"seed": int(options[options.index("--seed") + 1])}
        config.work_dir = str(training.work_dir)
        accuracy = 90 - abs(math.log(config.optim_wrapper.optimizer.lr / self.best))
        lines = [{"loss": 1.0, "lr": 0.1, "iter": 10, "step": 10}]
        if how == "finished":
            lines.append({"accuracy/top1": accuracy, "step": 10})
        stamp = f"20260101_00000{len(list(training.work_dir.glob('2026*')))}"
        folder = launch(training.work_dir, stamp, lines, config=config.pretty_text)
        states = {
            "finished": RunState("finished", 10, 10),
            "diverged": RunState("failed", 5, 10, f"{NOT_FINITE} since iteration 5"),
            "broken": RunState("failed", 5, 10, "a broken image"),
            "killed": RunState("running", 5, 10),
            "alive": RunState("running", 5, 10),
        }
        write_state(folder, states[how])
        if how == "killed":
            write_json(folder / FOLDER / STATE_FILE, {"status": "running", "updated": 0.0})
        (training.work_dir / "last_checkpoint").write_text("somewhere")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTrainings:
    """Trainings that end at once; in a folder of their own."""
    trainings = FakeTrainings()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "train", trainings)
    monkeypatch.setattr(command.preflight, "check", lambda config: None)
    return trainings
