from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator

from benchmarks.pipelines.language import TokenLoss
from tests.measure.processes import on_two_processes

LOSSES = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])


def samples(losses: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    return [{"loss": loss} for loss in losses]


def test_the_mean_over_sequences_under_its_name() -> None:
    evaluator = Evaluator([dict(type="TokenLoss")])
    for batch in (LOSSES[:3], LOSSES[3:].bfloat16()):  # the last batch is smaller
        evaluator.process(samples(batch), None)
    assert evaluator.evaluate(5) == {"val/loss": pytest.approx(31 / 5)}


def _evaluate_half(rank: int) -> dict[str, float]:
    metric = TokenLoss()
    # as MMEngine's sampler deals them out: rank r has r, r + 2, …, and one twice to fill up
    dealt = torch.cat([LOSSES, LOSSES[:1]])
    metric.process(None, samples(dealt[rank::2]))
    return metric.evaluate(size=5)


@pytest.mark.slow
def test_two_processes_report_the_same_without_the_padding(tmp_path: Path) -> None:
    first, second = on_two_processes(tmp_path, _evaluate_half)
    assert first == second == {"val/loss": pytest.approx(31 / 5)}
