from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator

from benchmarks.pipelines.classification import TopKAccuracy
from tests.measure.processes import on_two_processes

# Rows by hand: the true class ranks first, second, third and last of six.
LOGITS = torch.tensor(
    [
        [3.0, 2.0, 1.0, 0.0, -1.0, -2.0],
        [3.0, 2.0, 1.0, 0.0, -1.0, -2.0],
        [3.0, 2.0, 1.0, 0.0, -1.0, -2.0],
        [3.0, 2.0, 1.0, 0.0, -1.0, -2.0],
    ]
)
LABELS = torch.tensor([0, 1, 2, 5])


def samples(logits: torch.Tensor, labels: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    return [{"logits": row, "label": label} for row, label in zip(logits, labels, strict=True)]


def evaluate(metric: TopKAccuracy, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    for start in range(0, len(labels), 3):  # the last batch is smaller
        part = slice(start, start + 3)
        metric.process(None, samples(logits[part], labels[part]))
    return metric.evaluate(size=len(labels))


def test_matches_a_hand_computation() -> None:
    log_sum = torch.logsumexp(LOGITS[0], dim=0).item()
    result = evaluate(TopKAccuracy(), LOGITS, LABELS)
    assert list(result) == ["accuracy/top1", "accuracy/top5", "val/loss"]
    assert result["accuracy/top1"] == pytest.approx(25.0)
    assert result["accuracy/top5"] == pytest.approx(75.0)
    assert result["val/loss"] == pytest.approx(log_sum - (3 + 2 + 1 - 2) / 4)


def test_other_ks() -> None:
    result = evaluate(TopKAccuracy(topk=(2, 3)), LOGITS, LABELS)
    assert result["accuracy/top2"] == pytest.approx(50.0)
    assert result["accuracy/top3"] == pytest.approx(75.0)


def test_no_top5_of_fewer_than_five_classes() -> None:
    labels = LABELS.clamp(max=3)
    assert "accuracy/top5" not in evaluate(TopKAccuracy(), LOGITS[:, :4], labels)
    assert "accuracy/top5" in evaluate(TopKAccuracy(), LOGITS[:, :5], labels)


def test_images_that_only_pad_the_last_batch_do_not_count() -> None:
    metric = TopKAccuracy()
    metric.process(None, samples(LOGITS, LABELS))
    assert metric.evaluate(size=1)["accuracy/top1"] == pytest.approx(100.0)


def test_a_dead_network_is_not_right() -> None:
    labels = torch.arange(6)
    for value in (0.0, float("nan")):
        result = evaluate(TopKAccuracy(), torch.full((6, 6), value), labels)
        assert result["accuracy/top1"] == pytest.approx(100 / 6)


def test_keys_survive_the_evaluator() -> None:
    evaluator = Evaluator([dict(type="TopKAccuracy")])
    evaluator.process(samples(LOGITS, LABELS), None)
    assert set(evaluator.evaluate(4)) == {"accuracy/top1", "accuracy/top5", "val/loss"}


def _evaluate_half(rank: int) -> dict[str, float]:
    metric = TopKAccuracy()
    # As MMEngine's sampler deals them out: rank r has images r, r + 2, …
    metric.process(None, samples(LOGITS[rank::2], LABELS[rank::2]))
    return metric.evaluate(size=3)


@pytest.mark.slow
def test_two_processes_report_the_same_without_the_padding(tmp_path: Path) -> None:
    first, second = on_two_processes(tmp_path, _evaluate_half)
    assert first == second
    assert first == pytest.approx(evaluate(TopKAccuracy(), LOGITS[:3], LABELS[:3]))
