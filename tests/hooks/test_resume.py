"""A run that was stopped and resumed leaves the rows of one that never was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.hooks import Hook
from mmengine.runner import Runner

from smd_hooks import load_runs
from tests.hooks.runs import tiny_runner

STEPS = 48


class StopAt(Hook):
    """Write a checkpoint, train on for a while, and die."""

    priority = "LOWEST"

    def __init__(self, step: int, after: int) -> None:
        self.step, self.after = step, after

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter == self.step:
            runner.save_checkpoint(runner.work_dir, "stop.pth", by_epoch=False)
        if runner.iter == self.step + self.after:
            raise KeyboardInterrupt


def hooks(interval: int) -> list[dict[str, Any]]:
    return [{"type": "SMDHook", "interval": interval, "per_filter": True}]


def rows(folder: Path) -> pd.DataFrame:
    (run,) = load_runs(folder)
    return run.samples.sort_values(["step", "weight", "unit"], ignore_index=True)


@pytest.mark.slow
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    step=st.integers(9, STEPS - 6),
    after=st.integers(0, 5),
    interval=st.sampled_from([1, 3]),
    accumulation=st.sampled_from([1, 2]),
)
def test_a_stopped_and_resumed_run_leaves_identical_rows(
    tmp_path_factory: pytest.TempPathFactory,
    step: int,
    after: int,
    interval: int,
    accumulation: int,
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    options: dict[str, Any] = {"iterations": STEPS, "milestones": (30,)}
    step -= (step + 1) % accumulation  # MMEngine forgets half-accumulated gradients
    tiny_runner(folder / "whole", hooks(interval), accumulation=accumulation, **options).train()

    stopped = tiny_runner(folder / "cut", hooks(interval), accumulation=accumulation, **options)
    stopped.register_hook(StopAt(step, after))
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    hook = next(hook for hook in stopped.hooks if type(hook).__name__ == "SMDHook")
    hook.close(stopped, "failed", "stopped")
    launch = next((folder / "cut").glob("*_*/smd")).parent
    launch.rename(launch.with_name("20000101_000000"))
    tiny_runner(
        folder / "cut",
        hooks(interval),
        accumulation=accumulation,
        resume=True,
        load_from=str(folder / "cut" / "stop.pth"),
        **options,
    ).train()
    whole, cut = rows(folder / "whole"), rows(folder / "cut")
    assert set(whole["unit"]) == {-1, *range(8)}
    pd.testing.assert_frame_equal(cut, whole, check_exact=True)


def test_noise_is_averaged_over_the_steps_before_the_resume(tmp_path: Path) -> None:
    hook: dict[str, Any] = {"type": "SMDHook", "noise": {"layers": ["conv"], "interval": 1}}
    options: dict[str, Any] = {"iterations": 40, "accumulation": 2}
    tiny_runner(tmp_path / "whole", [hook], **options).train()
    cut = tiny_runner(tmp_path / "cut", [hook], **options)
    cut.register_hook(StopAt(19, 0))
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    launch = next((tmp_path / "cut").glob("*_*/smd")).parent
    launch.rename(launch.with_name("20000101_000000"))
    resumed = {"resume": True, "load_from": str(tmp_path / "cut" / "stop.pth")}
    tiny_runner(tmp_path / "cut", [hook], **options, **resumed).train()
    (whole,), (stitched,) = load_runs(tmp_path / "whole"), load_runs(tmp_path / "cut")
    assert set(whole.layers["step"]) == set(range(20))
    key = ["quantity", "step"]
    pd.testing.assert_frame_equal(
        stitched.layers.sort_values(key, ignore_index=True),
        whole.layers.sort_values(key, ignore_index=True),
        check_exact=True,
    )


def test_control_a_resume_that_loses_its_momentum_leaves_other_rows(tmp_path: Path) -> None:
    tiny_runner(tmp_path / "whole", hooks(1), iterations=STEPS).train()
    tiny_runner(tmp_path / "cut", hooks(1), iterations=20).train()
    launch = next((tmp_path / "cut").glob("*_*/smd")).parent
    launch.rename(launch.with_name("20000101_000000"))
    path = tmp_path / "cut" / "iter_20.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["optimizer"]["state"] = {}
    torch.save(checkpoint, path)
    tiny_runner(
        tmp_path / "cut", hooks(1), iterations=STEPS, resume=True, load_from=str(path)
    ).train()
    whole, cut = rows(tmp_path / "whole"), rows(tmp_path / "cut")
    before, after = (cut["step"] < 20), (cut["step"] > 20)
    assert cut[before].equals(whole[before])
    assert not cut[after].equals(whole[after])
