"""What the hooks need of a Runner, with one-line errors where it cannot be had.

MMEngine's ``call_hook`` re-raises a TypeError without its frames, so nothing here may
raise one.
"""

from __future__ import annotations

from pathlib import Path

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer


def unwrapped_model(runner: Runner) -> nn.Module:
    """Return the model without DDP around it."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def single_optimizer(runner: Runner, hook: str) -> Optimizer:
    """Return the run's optimizer.

    Raises:
        RuntimeError: There are several, or it does not step through torch's hooks.
    """
    optimizer = getattr(runner.optim_wrapper, "optimizer", None)
    if optimizer is None:
        names = ", ".join(getattr(runner.optim_wrapper, "optim_wrappers", {}))
        raise RuntimeError(f"{hook}: needs a run with one optimizer, this one has: {names}")
    if not isinstance(optimizer, Optimizer):
        raise RuntimeError(
            f"{hook}: {type(optimizer).__name__} does not step through torch.optim.Optimizer's "
            "hooks, so its steps cannot be measured"
        )
    return optimizer


def launch_folder(runner: Runner) -> Path:
    """Return ``<work_dir>/<timestamp>``, where MMEngine keeps this launch's logs."""
    return Path(runner.log_dir)
