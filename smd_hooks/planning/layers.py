"""Which weights of a model can be scale-invariant, without data and without training.

The model is put into training mode and run on tensors that have a shape and no content
(torch's meta device); what each weight's output meets first is then read off the autograd
graph, as :mod:`smd_hooks.measure.structure` does in training. A detector runs part by part:
backbone, neck, and each head on the features or RoIs that it takes. Of a part that does not
run like that, only mmcv's ConvModules are known; else nobody can tell, and that is said.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..analysis.forecast.plan import Layers
from ..measure.autograd_graph import NORMS, Graph, tensors
from ..measure.parameters import is_measurable
from ..measure.structure import Destination, destinations

SIZES = (256, 224)
"""Sides of the square images that are tried, pixels; some networks take only one."""
BATCH = 2
LENGTH = 16
FROZEN = "frozen (requires_grad=False)"
EVAL_MODE = "its BatchNorm is in eval mode (norm_eval or frozen statistics)"
NO_NORM = "no norm follows: another weight, a sum or the loss comes first"
IDLE = "no norm in its {} acts in training"
UNTRIED = "its {} does not run without data"
_STANDARDIZED = {"ConvWS2d", "ConvAWS2d"}
"""Layers that take their weight's mean off and divide it by its deviation."""
_ORDINARY = {"a sum", "another weight", "the loss or the model's output"}


def judge_layers(model: nn.Module) -> Layers:
    """Judge every weight matrix of a model.

    Args:
        model: The model; its parameters are moved to the meta device, and what it held is
            lost.
    """
    model.to("meta").train()
    _simplify(model)
    try:
        found = destinations(Graph.of(list(_outputs(model)), model))
    except Exception:  # a graph with nodes of a kind that nobody expects
        found = {}
    invariant: list[str] = []
    others: dict[str, list[str]] = defaultdict(list)
    unknown: dict[str, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if not is_measurable(parameter):
            continue
        verdict, reason = _judge(name, parameter, model, found.get(name))
        if verdict:
            invariant.append(name)
        else:
            (unknown if verdict is None else others)[reason].append(name)
    return Layers(tuple(invariant), _frozen(others), _frozen(unknown))


def _frozen(names: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {reason: tuple(several) for reason, several in names.items()}


def _judge(
    name: str, parameter: Tensor, model: nn.Module, met: Destination | None
) -> tuple[bool | None, str]:
    if not parameter.requires_grad:
        return False, FROZEN
    module = model.get_submodule(name.rpartition(".")[0])
    standardized = {kind.__name__ for kind in type(module).__mro__} & _STANDARDIZED
    if standardized and name.endswith(".weight"):
        return True, ""
    if met is None:
        return _judge_unseen(name, model)
    if met.normalized is False and not met.certain and not met.norms:
        first = met.reason.removeprefix("reaches ").removesuffix(" before any norm").split(" and ")
        if all(any(thing.startswith(known) for known in _ORDINARY) for thing in first):
            return False, NO_NORM
        if any(_is_strange(kind) for kind in re.findall(r"\((\w+)\)", met.reason)):
            return None, met.reason
    return met.normalized, met.reason


def _is_strange(kind: str) -> bool:
    """Whether an operation is not one of torch's own: somebody's function may be a norm."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
    return not hasattr(torch.ops.aten, snake)


def _judge_unseen(name: str, model: nn.Module) -> tuple[bool | None, str]:
    """Judge a weight that no forward pass has reached."""
    path = name.split(".")
    module: Any = model.get_submodule(".".join(path[:-2]))
    if type(module).__name__ == "ConvModule" and module.with_norm and path[-2] == "conv":
        if module.order[:2] == ("conv", "norm") and not acts_in_training(module.norm):
            return False, EVAL_MODE
        if module.order[:2] == ("conv", "norm") and module.conv.bias is None:
            return True, ""
    part, holder = ("", model) if len(path) == 1 else (path[0], model.get_submodule(path[0]))
    norms = [m for m in holder.modules() if is_norm(m)]
    if any(acts_in_training(norm) for norm in norms):
        return None, UNTRIED.format(part or "model")
    return False, IDLE.format(part or "model") if norms else NO_NORM


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalization layer, by the name of its class or of a parent's."""
    return any(norm in kind.__name__ for kind in type(module).__mro__ for norm in NORMS)


def acts_in_training(module: nn.Module) -> bool:
    """Whether a module is a norm that now uses its input's own statistics."""
    if not is_norm(module) or "Frozen" in type(module).__name__:
        return False
    # of those that keep running statistics, only in training mode
    return module.training or getattr(module, "running_mean", None) is None


def _simplify(model: nn.Module) -> None:
    """Exchange deformable convolutions, whose operator needs compiled code, for plain ones.

    They are just as linear in their weight, and all that is asked is where the output goes.
    """
    for module in model.modules():
        if "DeformConv2d" in type(module).__name__ and hasattr(module, "groups"):
            module.forward = partial(_plain_convolution, module)


def _plain_convolution(module: Any, x: Tensor, *sampling: Tensor) -> Tensor:
    return functional.conv2d(
        x,
        module.weight,
        getattr(module, "bias", None),
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
    )


# ------------------------------------------------------------------------- running parts


def _outputs(model: nn.Module) -> Iterator[Any]:
    """Run what of a model runs without data, and yield what came out."""
    if isinstance(getattr(model, "backbone", None), nn.Module):
        yield from _parts(model)
        return
    whole = _first_that_runs([partial(model, x) for x in (*_tokens(model), *_images(model))])
    if whole is not None:
        yield whole
        return
    for child in model.children():  # a detector inside a tracker, student and teacher
        if any(isinstance(getattr(m, "backbone", None), nn.Module) for m in child.modules()):
            yield from _outputs(child)


def _parts(model: Any) -> Iterator[Any]:
    features = _first_that_runs([partial(model.backbone, x) for x in _images(model.backbone)])
    if features is None:
        return
    neck = getattr(model, "neck", None)
    if isinstance(neck, nn.Module):
        # what runs of a neck on its features runs on nothing else
        through = _first_that_runs([partial(neck, features)])
        if through is None:
            yield features
            return
        features = through
    yield features
    for name, child in model.named_children():
        if name in ("backbone", "neck", "data_preprocessor"):
            continue
        if name == "roi_head":
            yield from _roi_parts(child)
        elif (out := _first_that_runs([partial(child, features)])) is not None:
            yield out


def _roi_parts(roi_head: nn.Module) -> Iterator[Any]:
    for head in roi_head.modules():
        channels, size = getattr(head, "in_channels", None), getattr(head, "roi_feat_size", 7)
        if not isinstance(channels, int) or not type(head).__name__.endswith("Head"):
            continue
        side = size if isinstance(size, int) else size[0]
        rois = torch.empty(BATCH, channels, side, side, device="meta")
        out = _first_that_runs([partial(head, rois), partial(head, rois.flatten(1))])
        if out is not None:
            yield out


def _tokens(model: nn.Module) -> Iterator[Tensor]:
    """Yield token ids for a model with tables to look them up in."""
    tables = [len(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)]
    if tables:  # no longer than the table of positions
        shape = BATCH, min(LENGTH, *tables)
        yield torch.zeros(shape, dtype=torch.int64, device="meta")


def _images(model: nn.Module) -> Iterator[Tensor]:
    # some take another number of channels, others put pixels side by side before the first
    first = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    for count in {3: None, first: None}:
        for side in SIZES:
            yield torch.empty(BATCH, count, side, side, device="meta")


def _first_that_runs(attempts: list[Callable[[], Any]]) -> Any:
    for attempt in attempts:
        try:
            out = attempt()
        except Exception:  # whatever a stranger's forward raises on tensors without content
            continue
        if any(True for _ in tensors(out)):
            return out
    return None
