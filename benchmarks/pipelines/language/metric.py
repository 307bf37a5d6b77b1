"""Validation loss of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class TokenLoss(BaseMetric):
    """The mean cross-entropy over all validated tokens, ``val/loss``, in nats per token.

    Sequences are of one length, as :class:`.TokenFileDataset` gives them, so that the mean of
    their means is the mean of all tokens.

    Example:
        ::

            val_evaluator = dict(type='TokenLoss')
    """

    # The metric's name is complete as it is: an empty prefix adds nothing, and no warning.
    default_prefix = ""

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, torch.Tensor]]) -> None:
        """Keep each sequence's mean.

        Args:
            data_batch: of no use here; part of MMEngine's interface.
            data_samples: predictions with ``loss`` (), in nats per token.
        """
        # one transfer off the device per batch
        self.results += torch.stack([sample["loss"] for sample in data_samples]).tolist()

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """Average all sequences.

        Args:
            results: what :meth:`process` kept, of all processes.

        Returns:
            ``val/loss``, in nats per token.
        """
        return {"val/loss": sum(results) / len(results)}
