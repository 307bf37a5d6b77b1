"""Top-k accuracy and validation loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from torch.nn.functional import cross_entropy


@METRICS.register_module()
class TopKAccuracy(BaseMetric):
    """Share of images whose class is among the k largest logits, and the mean cross-entropy.

    Reports ``accuracy/top{k}`` in percent for each k up to the number of classes, and ``val/loss``
    in nats.

    Args:
        topk: the values of k.

    Example:
        ::

            val_evaluator = dict(type='TopKAccuracy', topk=(1, 5))
    """

    # Metric names are complete as they are: an empty prefix adds nothing, and no warning.
    default_prefix = ""

    def __init__(self, topk: Sequence[int] = (1, 5)) -> None:
        super().__init__()
        self.topk = tuple(topk)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, torch.Tensor]]) -> None:
        """Keep one row per image: its loss, then whether it is right at each k.

        Args:
            data_batch: of no use here; part of MMEngine's interface.
            data_samples: predictions with ``logits`` (num_classes,) and ``label`` ().
        """
        logits = torch.stack([sample["logits"] for sample in data_samples]).float()
        labels = torch.stack([sample["label"] for sample in data_samples])
        ks = self._sensible_ks(logits.shape[1])
        ranked = logits.topk(max(ks), dim=1).indices
        right = ranked == labels[:, None]
        columns = [cross_entropy(logits, labels, reduction="none")]
        columns += [right[:, :k].any(dim=1).float() for k in ks]
        # One transfer off the device per batch.
        rows = torch.stack(columns, dim=1).tolist()
        self.results += [dict(zip(("loss", *ks), row, strict=True)) for row in rows]

    def compute_metrics(self, results: list[dict[str | int, float]]) -> dict[str, float]:
        """Average the rows of all images.

        Args:
            results: what :meth:`process` kept, of all processes.

        Returns:
            ``accuracy/top{k}`` in percent, and ``val/loss``.
        """
        means = {
            column: sum(row[column] for row in results) / len(results) for column in results[0]
        }
        loss = means.pop("loss")
        return {**{f"accuracy/top{k}": 100 * mean for k, mean in means.items()}, "val/loss": loss}

    def _sensible_ks(self, num_classes: int) -> list[int]:
        return [k for k in self.topk if k <= num_classes]
