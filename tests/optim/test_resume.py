"""MMEngine: a run that is resumed from a checkpoint ends at the weights of one that ran through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook

from smd_hooks.optim import LionAR
from tests.hooks.runs import tiny_runner
from tests.optim.cases import NO_WARMUP, PLAIN, Case, name_of

STEPS, STOP = 32, 20

# MMEngine steps its schedules while gradients are still being accumulated
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `scheduler.step:UserWarning")


class ForgetState(Hook):
    """Take the optimizer's state away after it was resumed."""

    def before_train(self, runner: Any) -> None:
        runner.optim_wrapper.optimizer.state.clear()


def train(folder: Path, case: Case, steps: int, **more: Any) -> tuple[list[torch.Tensor], Any]:
    """Return the weights and the optimizer's state at the end of a run."""
    runner = tiny_runner(
        folder,
        more.pop("hooks", []),
        iterations=steps,
        optimizer=lambda model: case.build(model.parameters()),
        milestones=(12, 26),
        **more,
    )
    runner.train()
    weights = [w.detach().clone() for w in runner.model.state_dict().values()]
    return weights, runner.optim_wrapper.optimizer.state_dict()["state"]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("case", [*PLAIN, Case(LionAR, NO_WARMUP)], ids=name_of)
def test_a_resumed_run_ends_at_the_same_bits(tmp_path: Path, case: Case, accumulation: int) -> None:
    weights, state = train(tmp_path / "whole", case, STEPS, accumulation=accumulation)
    resumed, its_state = train(
        tmp_path / "cut",
        case,
        STEPS,
        accumulation=accumulation,
        resume=True,
        load_from=str(tmp_path / "whole" / f"iter_{STOP}.pth"),
    )
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))
    assert its_state.keys() == state.keys()
    for key, entry in state.items():
        assert all(torch.equal(entry[name], its_state[key][name]) for name in entry)


@pytest.mark.parametrize("case", PLAIN, ids=name_of)
def test_control_without_its_state_a_run_ends_elsewhere(tmp_path: Path, case: Case) -> None:
    weights, _ = train(tmp_path / "whole", case, STEPS)
    path = str(tmp_path / "whole" / f"iter_{STOP}.pth")
    resumed, _ = train(
        tmp_path / "cut",
        case,
        STEPS,
        resume=True,
        load_from=path,
        hooks=[{"type": ForgetState}],
    )
    assert not all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))
