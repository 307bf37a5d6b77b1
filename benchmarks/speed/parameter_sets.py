"""Parameters of networks that people train, by shape: what an optimizer's step works on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Shapes = dict[str, tuple[int, ...]]


def resnet50_shapes() -> Shapes:
    """torchvision's ResNet-50."""
    import torchvision.models

    with torch.device("meta"):
        network = torchvision.models.resnet50()
    return {name: tuple(p.shape) for name, p in network.named_parameters()}


def mask_rcnn_shapes() -> Shapes:
    """torchvision's Mask R-CNN R50-FPN, nothing of it frozen."""
    import torchvision.models

    with torch.device("meta"):
        network = torchvision.models.detection.maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None
        )
    return {name: tuple(p.shape) for name, p in network.named_parameters()}


def gpt2_124m_shapes() -> Shapes:
    """The 124M-parameter GPT-2: 12 blocks of width 768, the head tied to the embedding."""
    width = 768
    linears = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, 4 * width),
        "mlp.c_proj": (4 * width, width),
    }
    norms = [f"h.{block}.{norm}" for block in range(12) for norm in ("ln_1", "ln_2")] + ["ln_f"]
    shapes: Shapes = {"wte.weight": (50257, width), "wpe.weight": (1024, width)}
    for block in range(12):
        for name, (rows, columns) in linears.items():
            shapes[f"h.{block}.{name}.weight"] = (rows, columns)
            shapes[f"h.{block}.{name}.bias"] = (columns,)
    for norm in norms:
        shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (width,)
    return shapes


SETS: dict[str, Callable[[], Shapes]] = {
    "resnet50": resnet50_shapes,
    "mask-rcnn": mask_rcnn_shapes,
    "gpt2-124m": gpt2_124m_shapes,
}


def random_parameters(shapes: Shapes, device: torch.device) -> list[tuple[str, nn.Parameter]]:
    """Fill a set with N(0, 1/50²) weights and N(0, 1) gradients, float32, from seed 0."""
    generator = torch.Generator(device).manual_seed(0)
    named = []
    for name, shape in shapes.items():
        parameter = nn.Parameter(torch.randn(shape, generator=generator, device=device) / 50)
        parameter.grad = torch.randn(shape, generator=generator, device=device)
        named.append((name, parameter))
    return named
