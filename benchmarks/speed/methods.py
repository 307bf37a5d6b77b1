"""What the probe is timed beside: the way research code logs angles, and the memory floor."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch.optim import Optimizer

from benchmarks.speed.stopwatch import Named
from smd_hooks.measure import c_sums, fused
from smd_hooks.measure.parameters import is_measurable


def matrices(named: Named) -> list[Tensor]:
    """Return the parameters that the probe measures."""
    return [parameter for _, parameter in named if is_measurable(parameter)]


class PeerLogger:
    """Logs angles as research code does: one parameter after the other, read back at once.

    It clones each weight before the step and takes acos of torch's ``cosine_similarity`` after
    it, in the weights' own precision, with the norms of weight and gradient beside. So does the
    logger of *Rotational Equilibrium*'s authors (epfml/REQ), which also copies the optimizer's
    state and logs more: this is the least of it, half of what the probe records, and wrong
    below 3e-4 radians.
    """

    def __init__(self, optimizer: Optimizer, named: Named) -> None:
        self.rows: list[tuple[float, float, float]] = []
        """Angle in radians, ‖w‖ and ‖g‖ of each weight at the last step."""
        self._weights = matrices(named)
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _before(self, *_: Any) -> None:
        self._old = [weight.detach().clone() for weight in self._weights]

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        self.rows = []
        for old, weight in zip(self._old, self._weights, strict=True):
            assert weight.grad is not None
            norm = old.norm()
            angle = torch.acos(self._cosine(old, weight, norm).clamp(-1, 1))
            self.rows.append((angle.item(), norm.item(), weight.grad.norm().item()))
        self._old = []

    def _cosine(self, old: Tensor, weight: Tensor, norm: Tensor) -> Tensor:
        return cosine_similarity(old.flatten(), weight.flatten(), dim=0)


class LeanLogger(PeerLogger):
    """The same with a cosine by hand: the least that one parameter after the other can cost."""

    def _cosine(self, old: Tensor, weight: Tensor, norm: Tensor) -> Tensor:
        return (old * weight).sum() / (norm * weight.norm())


def cockpit_is_there() -> bool:
    """Whether Cockpit can be imported."""
    try:
        import_module("cockpit.quantities")
    except Exception:  # it has not kept up with what it needs
        return False
    return True


class CockpitLogger:
    """Cockpit's ``UpdateSize`` at every step: the norm of each parameter's update.

    It keeps a clone from one call to the next, and reads each norm back at once.
    """

    def __init__(self, optimizer: Optimizer, named: Named) -> None:
        # every step; before the first there is none that an update could have begun at
        self._quantity = import_module("cockpit.quantities").UpdateSize(lambda step: step >= 0)
        self._weights, self._step = matrices(named), 0
        self._handle = optimizer.register_step_post_hook(self._after)

    def detach(self) -> None:
        """Remove the hook."""
        self._handle.remove()

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        self._quantity.track(self._step, self._weights, None)
        self._step += 1


class WeightCopy:
    """Copies the weights into buffers that are there already, as fast as the library can."""

    def __init__(self, optimizer: Optimizer, named: Named) -> None:
        self._weights = matrices(named)
        self._buffers = [torch.empty_like(weight) for weight in self._weights]
        self._handle = optimizer.register_step_pre_hook(self._copy)

    def detach(self) -> None:
        """Remove the hook."""
        self._handle.remove()

    @torch.no_grad()
    def _copy(self, *_: Any) -> None:
        c_sums.copy_all(self._buffers, self._weights)


class TorchCopy(WeightCopy):
    """The same by torch: through the caches."""

    @torch.no_grad()
    def _copy(self, *_: Any) -> None:
        torch._foreach_copy_(self._buffers, self._weights)


def how_sums_are_done(device: torch.device) -> str:
    """Say which form of the probe's one pass over the tensors is timed."""
    if device.type == "cuda":
        one = fused.load_triton(torch.float32, torch.device("cuda"))
        return "one weight after the other, in torch" if one is None else "in Triton"
    return "in C" if c_sums.load() else "in torch, since no C compiler was found"
