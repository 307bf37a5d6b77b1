"""mmcv's compiled operators, through torchvision's.

``pip install onedl-mmcv`` gives a pure Python wheel unless it is told to compile its
extension, which takes the better part of an hour; mmdet then fails at import with "No
module named 'mmcv._ext'". torchvision ships compiled kernels for the few operators that
mmdet's common detectors use, on CPU and CUDA. :func:`install` puts them where mmcv looks.

The functions here keep mmcv's calling convention: buffers come in as arguments and are
filled in place. mmcv's own ``autograd.Function``s (mmcv/ops/*.py) do the rest.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor

from benchmarks.errors import UsageError

EXTENSION = "mmcv._ext"


def install() -> None:
    """Make ``mmcv.ops`` and mmdet importable where mmcv has no compiled extension.

    To be called before mmdet or ``mmcv.ops`` is imported (importing ``mmcv`` alone does
    no harm). A compiled ``mmcv._ext`` that loads is left in place; otherwise a stand-in
    goes into ``sys.modules``, so forked workers have it as well. Calling it again does
    nothing.

    Every operator that torchvision lacks is still there, and raises a ``RuntimeError``
    that names it when it is *called*, so that importing mmdet works.

    Raises:
        UsageError: mmcv itself is not installed.
    """
    if find_spec("mmcv") is None:
        raise UsageError("mmcv is not installed: detection needs it (pip install onedl-mmcv)")
    importlib.import_module("mmcv")
    try:
        importlib.import_module(EXTENSION)
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):
            warnings.warn(
                f"{EXTENSION} is there but does not load ({error}); "
                "torchvision's operators take its place",
                stacklevel=2,
            )
        sys.modules[EXTENSION] = stand_in()


def stand_in() -> ModuleType:
    """Build a module that answers for ``mmcv._ext`` with torchvision's operators."""
    module = module_from_spec(ModuleSpec(EXTENSION, loader=None, origin="torchvision"))
    vars(module).update(__getattr__=_operator)
    return module


def _operator(name: str) -> Callable[..., Any]:
    """Return an operator; one that torchvision lacks says so when it is called."""
    if name.startswith("__"):
        raise AttributeError(name)
    importlib.import_module("torchvision")  # here: its second is not for who needs no operator
    if name in _OPERATORS:
        return _OPERATORS[name]

    def needs_compiled_mmcv(*args: Any, **kwargs: Any) -> NoReturn:
        raise _unsupported(name)

    return needs_compiled_mmcv


def _unsupported(operator: str) -> RuntimeError:
    return RuntimeError(
        f"mmcv op '{operator}' needs a compiled mmcv: torchvision has none like it; choose a model "
        "without it or compile one (pip install --no-build-isolation --no-cache-dir "
        "--force-reinstall --no-deps onedl-mmcv)"
    )


def _full_precision(tensor: Tensor) -> Tensor:
    """Cast fp16 and bf16 to fp32: not all of torchvision's kernels take them."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the boxes kept, best score first. ``boxes``: (N, 4), xyxy."""
    if offset != 0:
        raise _unsupported(f"nms with offset={offset}")
    return torch.ops.torchvision.nms(_full_precision(boxes), _full_precision(scores), iou_threshold)


def _roi_align_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` (K, C, aligned_height, aligned_width) from ``features`` (N, C, H, W).

    ``rois`` is (K, 5): image index, x1, y1, x2, y2. The argmaxes serve max pooling only.
    """
    _refuse_max_pooling(pool_mode)
    pooled = torch.ops.torchvision.roi_align(
        _full_precision(features),
        _full_precision(rois),
        spatial_scale,
        aligned_height,
        aligned_width,
        sampling_ratio,
        aligned,
    )
    output.copy_(pooled)


def _roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``grad_input`` (N, C, H, W) from ``grad_output``, the gradient of the pooled RoIs."""
    _refuse_max_pooling(pool_mode)
    gradient = torch.ops.torchvision._roi_align_backward(
        _full_precision(grad_output),
        _full_precision(rois),
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )
    grad_input.copy_(gradient)


def _refuse_max_pooling(pool_mode: int) -> None:
    if pool_mode != 1:
        raise _unsupported("roi_align with pool_mode='max'")


def _sigmoid_focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    """Return the focal loss of each sample and class, (N, C).

    ``target`` holds one class index a sample, C for background; ``weight`` is empty or
    holds one factor per class, applied by the sample's class.
    """
    from torchvision.ops import sigmoid_focal_loss

    classes = torch.arange(logits.size(1), device=logits.device)
    one_hot = (target[:, None] == classes).to(logits.dtype)
    loss = sigmoid_focal_loss(logits, one_hot, alpha, gamma)
    return loss * weight[target, None] if weight.numel() else loss


def _sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N, C) with the loss."""
    output.copy_(_sigmoid_focal_loss(_full_precision(logits), target, weight, gamma, alpha))


def _sigmoid_focal_loss_backward(
    logits: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of the summed loss by the logits."""
    with torch.enable_grad():
        leaf = _full_precision(logits).detach().requires_grad_()
        loss = _sigmoid_focal_loss(leaf, target, weight, gamma, alpha).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    grad_input.copy_(gradient)


def _no_compiler() -> str:
    """Answer mmcv's environment report."""
    return "none (torchvision's operators)"


_OPERATORS: dict[str, Callable[..., Any]] = {
    "nms": _nms,
    "roi_align_forward": _roi_align_forward,
    "roi_align_backward": _roi_align_backward,
    "sigmoid_focal_loss_forward": _sigmoid_focal_loss_forward,
    "sigmoid_focal_loss_backward": _sigmoid_focal_loss_backward,
    "get_compiler_version": _no_compiler,
    "get_compiling_cuda_version": _no_compiler,
}
