"""What the hooks need of a Runner, with one-line errors where it cannot be had.

MMEngine's ``call_hook`` re-raises a TypeError without its frames, so nothing here may
raise one.
"""

from __future__ import annotations

from pathlib import Path

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer


def unwrapped_model(runner: Runner) -> nn.Module:
    """Return the model without DDP around it."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def optimizers_of(runner: Runner, hook: str) -> dict[str, Optimizer]:
    """Return the run's optimizers by the names that an OptimWrapperDict gives them.

    A run with a single one has it under the name "".

    Raises:
        RuntimeError: One does not step through torch's hooks (DeepSpeed).
    """
    wrapper = runner.optim_wrapper
    wrappers = wrapper.items() if isinstance(wrapper, OptimWrapperDict) else [("", wrapper)]
    optimizers = {name: w.optimizer for name, w in wrappers}
    for optimizer in optimizers.values():
        if not isinstance(optimizer, Optimizer):
            raise RuntimeError(
                f"{hook}: {type(optimizer).__name__} does not step through "
                "torch.optim.Optimizer's hooks, so its steps cannot be measured; train with "
                "DDP or FSDP2"
            )
    return optimizers


def single_optimizer(runner: Runner, hook: str) -> Optimizer:
    """Return the run's optimizer.

    Raises:
        RuntimeError: There are several, or it does not step through torch's hooks.
    """
    optimizers = optimizers_of(runner, hook)
    if len(optimizers) > 1:
        names = ", ".join(optimizers)
        raise RuntimeError(f"{hook}: needs a run with one optimizer, this one has: {names}")
    return next(iter(optimizers.values()))


def accumulation_of(runner: Runner) -> int:
    """Return how many iterations make an optimizer step."""
    return int(getattr(runner.optim_wrapper, "_accumulative_counts", 1))


def batch_size_of(runner: Runner, hook: str) -> int:
    """Return how many examples one iteration of one process has.

    Raises:
        RuntimeError: The dataloader does not say.
    """
    loader = runner.train_dataloader
    size = getattr(loader, "batch_size", None) or getattr(
        getattr(loader, "batch_sampler", None), "batch_size", None
    )
    if not size:
        raise RuntimeError(f"{hook} needs a train_dataloader with a fixed batch_size")
    return int(size)


def launch_folder(runner: Runner) -> Path:
    """Return ``<work_dir>/<timestamp>``, where MMEngine keeps this launch's logs."""
    return Path(runner.log_dir)
