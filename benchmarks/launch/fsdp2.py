"""FSDP2 under MMEngine, which itself has only its predecessor: weights sharded over processes.

What is sharded lives in memory as DTensors, of which each process holds some rows. On disk
there are only whole tensors: a checkpoint is what one process would have written, so that a run
may be resumed with FSDP2, DDP or alone, whichever it began with.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import broadcast, is_main_process
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS, MODEL_WRAPPERS
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.components import type_name
from benchmarks.errors import UsageError
from smd_hooks.measure.sharding import is_sharded, whole


@MODEL_WRAPPERS.register_module()
class FSDP2(nn.Module):
    """Shards a model's weights, gradients and optimizer state over all processes.

    Each member of a Sequential or ModuleList that has modules of its own (a residual block, a
    transformer's layer) is gathered before its forward pass; when its backward pass is done, its
    gradients are averaged over the processes, as by DDP, and shared out. What lies in none of them
    makes a group of its own. Buffers stay whole. Clipping, accumulation and mixed precision work
    as elsewhere. Without a launcher, alone, a process trains the model as it is.

    What is gathered stays so until backward: SMDHook reads in the graph of a forward pass which
    norm each weight meets.

    Args:
        module: the model, on its device; its weights are initialised here, while they are whole.

    Raises:
        UsageError: torch is older than 2.6.

    Example:
        ::

            model_wrapper_cfg = dict(type='FSDP2')
    """

    def __init__(self, module: BaseModel) -> None:
        super().__init__()
        try:
            from torch.distributed.fsdp import fully_shard
        except ImportError as error:
            raise UsageError(
                f"FSDP2 needs torch 2.6 or later, this is {torch.__version__}: "
                "leave model_wrapper_cfg out to train with DDP"
            ) from error
        module.init_weights()
        for value in module.state_dict().values():
            broadcast(value)
        for part in (*_blocks(module), module):
            fully_shard(part, reshard_after_forward=False)
        for part in module.modules():
            part.register_load_state_dict_pre_hook(_cut_weights)
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Take the model's own training step, whose forward pass gathers the weights."""
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: Any) -> list[Any]:
        """Predict a batch; all processes at once, though each has its own."""
        predictions = self.module.val_step(data)
        self._shard_again()
        return predictions

    def test_step(self, data: Any) -> list[Any]:
        """Predict a batch; all processes at once, though each has its own."""
        predictions = self.module.test_step(data)
        self._shard_again()
        return predictions

    def _shard_again(self) -> None:
        """Without a backward pass nothing else does, and parameters are not the optimizer's."""
        for part in self.module.modules():
            if hasattr(part, "reshard"):
                part.reshard()


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Find what is gathered by itself, inner ones first."""
    blocks = [
        member
        for container in model.modules()
        if isinstance(container, (nn.Sequential, nn.ModuleList))
        for member in container
        if not isinstance(member, (nn.Sequential, nn.ModuleList))
        and any(True for _ in member.children())
        and any(True for _ in member.parameters())
    ]
    return list(dict.fromkeys(reversed(blocks)))


def is_fsdp2(model_wrapper_cfg: Mapping[str, Any] | None) -> bool:
    """Whether a config's ``model_wrapper_cfg`` asks for it."""
    return model_wrapper_cfg is not None and type_name(model_wrapper_cfg) == FSDP2.__name__


def refuse_what_copies_the_model(hooks: Any) -> None:
    """Refuse hooks that FSDP2 does not let copy the model.

    Args:
        hooks: a config's custom_hooks.

    Raises:
        UsageError: one of them averages weights in a copy of the model.
    """
    for hook in hooks or ():
        named = hook["type"] if isinstance(hook, Mapping) else type(hook)
        kind = named if inspect.isclass(named) else HOOKS.get(str(named))
        if inspect.isclass(kind) and issubclass(kind, EMAHook):
            raise UsageError(
                f"{kind.__name__} copies the model, which FSDP2 cannot: leave model_wrapper_cfg "
                "out to train with DDP, or the hook"
            )


# ------------------------------------------------------------------------------ checkpoints


@contextmanager
def gathered(model: nn.Module, optim_wrapper: OptimWrapper | OptimWrapperDict) -> Iterator[None]:
    """Let ``state_dict()`` of a sharded model and its optimizer return whole tensors on the CPU.

    A collective at its beginning, so every process must enter it; within it only the first one
    has the values. Does nothing for other models.

    Args:
        model: the model as the Runner holds it.
        optim_wrapper: what steps it.
    """
    if not isinstance(model, FSDP2):
        yield
        return
    states = [(part, _whole(part.state_dict())) for part in (model.module, optim_wrapper)]
    for part, state in states:
        vars(part)["state_dict"] = lambda state=state: state
    try:
        yield
    finally:
        for part, _ in states:
            del vars(part)["state_dict"]


def _whole(state: Any) -> Any:
    """Gather every sharded tensor in a nest of dicts and lists."""
    if isinstance(state, dict):
        gathered_state = copy.copy(state)  # with the versions that a model's has beside its keys
        gathered_state.update((key, _whole(value)) for key, value in state.items())
        return gathered_state
    if isinstance(state, list):
        return [_whole(value) for value in state]
    if not is_sharded(state):
        return state
    value = whole(state)
    return value.cpu() if is_main_process() else None


def _cut_weights(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *of_no_use_here: Any
) -> None:
    """Cut what a module is about to load as its parameters are cut."""
    for name, parameter in module.named_parameters(recurse=False):
        value = state_dict.get(prefix + name)
        if value is not None and value.shape == parameter.shape:  # else torch says what differs
            state_dict[prefix + name] = _cut(value, parameter)


def cut_optimizer_state(
    checkpoint: dict[str, Any], optim_wrapper: OptimWrapper | OptimWrapperDict
) -> None:
    """Cut, in place, a whole optimizer state as the optimizer's parameters are cut.

    A collective.

    Args:
        checkpoint: a loaded checkpoint, with or without ``optimizer``.
        optim_wrapper: what will load that.
    """
    if "optimizer" not in checkpoint:
        return
    several = isinstance(optim_wrapper, OptimWrapperDict)
    for name, wrapper in optim_wrapper.items() if several else [("", optim_wrapper)]:
        saved = checkpoint["optimizer"][name] if several else checkpoint["optimizer"]
        saved["state"].update(list(_cut_states(saved, wrapper.optimizer)))


def _cut_states(
    saved: Mapping[str, Any], optimizer: Optimizer
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Cut the states of a state dict's parameters; what does not fit is left as it is."""
    groups = zip(saved["param_groups"], optimizer.param_groups, strict=False)
    pairs = [
        (key, parameter, group)
        for of_saved, group in groups
        for key, parameter in zip(of_saved["params"], group["params"], strict=False)
    ]
    for key, parameter, group in pairs:
        state = saved["state"].get(key)
        if state is not None:
            yield (
                key,
                {
                    name: _cut(value, parameter) if _has_rows_of(parameter, value, group) else value
                    for name, value in state.items()
                },
            )


def _has_rows_of(parameter: Tensor, value: Any, group: Mapping[str, Any]) -> bool:
    """Whether a state's tensor goes with the rows of its parameter, or all processes have it.

    Momentum has the parameter's shape, and what a rotational optimizer keeps per neuron one entry
    per row; what it keeps per tensor has one entry, as has a weight of a single row.
    """
    if not torch.is_tensor(value) or value.ndim == 0 or parameter.ndim == 0:
        return False
    per_tensor = value.shape != parameter.shape and not group.get("per_neuron", True)
    return value.shape[0] == parameter.shape[0] and not per_tensor


def _cut(value: Tensor, parameter: Tensor) -> Tensor:
    """Return this process's part of a whole tensor; of what is not sharded, all of it."""
    if not is_sharded(parameter) or is_sharded(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    like: Any = parameter
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
