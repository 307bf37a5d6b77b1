"""From a config to its forecast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..analysis.forecast.forecast import Forecast, forecast_plan
from .configs import in_a_line, load_config
from .plan import read_plan


def forecast(
    config: str | Path,
    iters_per_epoch: int | None = None,
    gpus: int | None = None,
    cfg_options: Mapping[str, Any] | None = None,
) -> Forecast:
    """Forecast what a config's schedule will do to its scale-invariant weights.

    No data is needed and nothing is trained. The config file is executed, as every MMEngine
    tool executes it, and the model is built (without contents) to see which of its weights a
    norm makes scale-invariant.

    Args:
        config: A config file, old- or new-style; ``mmdet::…`` as in MMEngine.
        iters_per_epoch: Iterations of one epoch; None to count the training data, where the
            training counts epochs.
        gpus: Number of processes; None for as many as ``auto_scale_lr.base_batch_size``
            speaks of, or one.
        cfg_options: Overrides, such as ``{"optim_wrapper.optimizer.lr": 0.1}``.

    Returns:
        The forecast; ``print`` shows it, ``to_json()`` hands it on.

    Raises:
        ValueError: In one line: the config does not load, or cannot be read as a plan.

    Example::

        from smd_hooks import forecast

        print(forecast("configs/coco/mask-rcnn_r50_fpn_syncbn-scratch_4x_coco.py"))
    """
    cfg, notes = load_config(config, cfg_options)
    name = Path(str(config)).stem
    try:
        plan = read_plan(cfg, name, iters_per_epoch, gpus, notes)
    except ValueError:
        raise
    except Exception as error:  # values of a kind that nobody expects there
        raise ValueError(f"config {config} is no plan: {in_a_line(error)}") from error
    return forecast_plan(plan)
