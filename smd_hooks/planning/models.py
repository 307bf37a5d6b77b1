"""Builds a config's model without contents: its weights have a shape, and take no memory."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import nn
from torch.overrides import TorchFunctionMode

from .configs import in_a_line, quiet
from .schedules import kind_of

LARGEST = 200_000_000
"""Parameters up to which a model is really initialised, to see how large its weights begin."""


class _WeightsWithoutContents(TorchFunctionMode):
    """Puts on the meta device what layers allocate for their weights.

    Only that: other small tensors that a constructor computes with keep their values.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.empty:
            kwargs["device"] = "meta"
        return function(*args, **kwargs)


def build_model(config: Any) -> nn.Module | str:
    """Build a model, on the meta device if it can be; in words why it cannot be built.

    Args:
        config: ``model`` of a config, the config's default scope being the current one.
    """
    if not config:
        return "the config has no model"
    try:
        with quiet():
            try:
                with _WeightsWithoutContents():
                    model = MODELS.build(without_surroundings(config))
            except Exception:  # a constructor that computes with its weights
                model = MODELS.build(without_surroundings(config))
    except (Exception, SystemExit) as error:
        return f"the model cannot be built here ({in_a_line(error)})"
    return model if isinstance(model, nn.Module) else "the config's model is no torch module"


def without_surroundings(config: Any) -> Any:
    """Copy a model's config without what needs a network or other processes.

    A teacher's checkpoint is not fetched, and what synchronizes between processes is exchanged
    for a norm that also works in one.
    """
    if isinstance(config, Mapping):
        copied: Any = copy.copy(config)
        for key, value in config.items():
            copied[key] = None if key == "teacher_ckpt" else without_surroundings(value)
        if copied.get("type") == "MMSyncBN":
            copied["type"] = "SyncBN"
        return copied
    if isinstance(config, list | tuple):
        return type(config)(without_surroundings(item) for item in config)
    return copy.copy(config)


def initial_rms(config: Any, names: Sequence[str], parameters: int) -> dict[str, float] | str:
    """Initialise a model for real and take the root mean square of some of its weights.

    Args:
        config: ``model`` of a config.
        names: The weights asked for.
        parameters: How many parameters the model has.

    Returns:
        By name, for those that do not come from a checkpoint; in words why there is none.
    """
    if parameters > LARGEST:
        return f"the model is too large to initialise for a forecast ({parameters:,} parameters)"
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same forecast each time
            model = MODELS.build(without_surroundings(config))
            loaded = set(_drop_checkpoints(model))
            if hasattr(model, "init_weights"):
                model.init_weights()
    except Exception as error:
        return f"the model cannot be initialised here ({in_a_line(error)})"
    weights = dict(model.named_parameters())
    found = {n: weights[n].detach() for n in names if n in weights and n not in loaded}
    if found and len(found) < len(names):
        rest = len(names) - len(found)
        return f"{rest} of {len(names)} weights begin as a checkpoint's"
    rms = {n: float(w.norm()) / math.sqrt(w.numel()) for n, w in found.items()}
    return {n: r for n, r in rms.items() if r > 0} or "the weights begin as a checkpoint's"


def _drop_checkpoints(model: nn.Module) -> Iterator[str]:
    """Take out initialisations that would load a file; yield the names of their weights."""
    for prefix, module in model.named_modules():
        several = getattr(module, "init_cfg", None)
        several = [several] if isinstance(several, Mapping) else several or []
        kinds = {kind_of(c) for c in several if isinstance(c, Mapping)}
        if kinds & {"Pretrained", "PretrainedInit"}:
            module.init_cfg = None
            yield from (f"{prefix}.{n}".lstrip(".") for n, _ in module.named_parameters())
