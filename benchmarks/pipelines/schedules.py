"""A warmup whose length is a share of the training, for sweeps that vary it."""

from __future__ import annotations

from typing import Any

from mmengine.optim.scheduler import LinearLR
from mmengine.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupShareLR(LinearLR):
    """Raises the learning rate linearly over a share of the iterations; multiplies what others set.

    After n of N iterations of warmup the factor is (n + 1)/N, so that the first step has a rate
    and the N-th the whole one. MMEngine's ``LinearLR`` does the same between two iterations, but a
    sweep can vary one number only, and at 0 it has no such thing as no warmup.

    Args:
        optimizer: The optimizer, or its wrapper.
        share: Of the iterations, 0 for no warmup, below 1.
        total: Iterations of the training.
        begin: Iteration at which it begins.
        by_epoch: False; iterations are counted.
        others: As of ``LinearLR``; where it ends is computed.

    Raises:
        ValueError: ``share`` is no share.

    Example::

        custom_imports = dict(imports=['benchmarks.pipelines.schedules'])
        param_scheduler = [dict(type='WarmupShareLR', share=0.05, total=90_000, by_epoch=False)]
    """

    def __init__(
        self,
        optimizer: Any,
        share: float,
        total: int,
        begin: int = 0,
        by_epoch: bool = False,
        **others: Any,
    ) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"WarmupShareLR: share={share}: give a share of the training, 0 to 1")
        if by_epoch:
            raise ValueError("WarmupShareLR counts iterations: set by_epoch=False")
        others.pop("end", None)  # the Runner's default, the end of the training
        steps = max(1, round(share * total))
        super().__init__(
            optimizer,
            start_factor=1 / steps,
            begin=begin,
            end=begin + steps,
            by_epoch=False,
            **others,
        )
