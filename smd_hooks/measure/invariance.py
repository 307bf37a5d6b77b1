"""Which weights are scale-invariant, and if not, why.

L(w) = L(k·w) for all k > 0 means ⟨w, g⟩ = 0. Real gradients miss zero by rounding, and
an unrelated gradient meets it by chance in one of twelve batches; the mean over batches
of z² = ⟨w,g⟩²/Σ(wᵢgᵢ)² tells them apart by five orders of magnitude (3e-6 against 0.3).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .geometry import radial_statistic
from .structure import Destination, destinations

Z2_LIMIT = 1e-2
"""Mean z² below which a weight counts as scale-invariant, if a norm was found behind it."""
Z2_ROUNDING = 1e-4
"""Mean z² that rounding alone can leave, bf16 included; below it no norm need be found."""
BATCHES = 8
"""Batches that a verdict rests on."""
PATIENCE = 4 * BATCHES
"""Steps after which a weight that still has no gradient is called unknown."""


@dataclass(frozen=True)
class Verdict:
    """What is known about one parameter.

    Attributes:
        parameter: Its name in the model.
        shape: Its shape.
        scale_invariant: True, False, or None where the gradient was zero throughout.
        statistic: Mean z² over ``batches``; None if there was no gradient.
        batches: Batches with a non-zero gradient.
        reason: In words, and for a weight left out the thing that stands in the way.
        norms: Names of the norm modules that normalize it.
    """

    parameter: str
    shape: tuple[int, ...]
    scale_invariant: bool | None
    statistic: float | None
    batches: int
    reason: str
    norms: tuple[str, ...] = ()

    @property
    def is_matrix(self) -> bool:
        """Whether it has two or more dimensions, and so could be scale-invariant."""
        return len(self.shape) >= 2

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


class ScaleInvarianceObserver:
    """Watches the first training steps and says which weights are scale-invariant.

    It costs no pass of its own: the gradients are those of training, and the reasons
    come from the graph of one training forward. Once ``done`` it watches nothing more.

    Args:
        model: The model that is trained, in train mode and unwrapped (no DDP).
        optimizer: Its optimizer.

    Example::

        observer = ScaleInvarianceObserver(model, optimizer)
        ...  # some training steps
        if observer.done:
            observer.detach()
            verdicts = observer.verdicts()
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.model = model
        self.done = False
        self.steps = 0
        """Optimizer steps watched so far."""
        self._destinations: dict[str, Destination] = {}
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._held = {name for name, p in model.named_parameters() if id(p) in held}
        self._watched = {
            name: p for name, p in model.named_parameters() if name in self._held and p.ndim >= 2
        }
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._forward_hook = model.register_forward_hook(
            torch.compiler.disable(self._after_forward)
        )
        self._step_hook = optimizer.register_step_pre_hook(
            torch.compiler.disable(self._before_step)
        )

    def detach(self) -> None:
        """Stop watching; verdicts then rest on what was seen."""
        self._forward_hook.remove()
        self._step_hook.remove()
        self.done = True

    def _after_forward(self, model: nn.Module, args: Any, outputs: Any) -> None:
        if not self._destinations and model.training and torch.is_grad_enabled():
            self._destinations = destinations(outputs, model)

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self.done:  # a hook cannot remove itself while the optimizer walks its hooks
            return
        for name, weight in self._watched.items():
            if weight.grad is None or weight.grad.is_sparse:
                continue
            z2 = radial_statistic(weight, weight.grad)
            seen = torch.isfinite(z2)
            zero = torch.zeros_like(z2)
            self._sums[name] = self._sums.get(name, zero) + torch.where(seen, z2, zero)
            self._counts[name] = self._counts.get(name, zero) + seen
        self.steps += 1
        if self.steps >= PATIENCE or (self.steps >= BATCHES and self._everyone_has_enough()):
            self.done = True

    def _everyone_has_enough(self) -> bool:
        counts = list(self._counts.values())
        return bool(counts) and bool((torch.stack(counts) >= BATCHES).all())

    def verdicts(self) -> list[Verdict]:
        """Return one verdict per parameter of the model, in the model's order."""
        return [self._verdict(name, p) for name, p in self.model.named_parameters()]

    def _verdict(self, name: str, parameter: Tensor) -> Verdict:
        batches = int(self._counts.get(name, torch.zeros(())).item())
        statistic = float(self._sums[name].item()) / batches if batches else None
        destination = self._destinations.get(name)
        invariant: bool | None = False
        if parameter.ndim < 2:
            reason = "gain or bias, not a weight matrix"
        elif not parameter.requires_grad:
            reason = "frozen (requires_grad=False)"
        elif name not in self._held:
            reason = "not handed to the optimizer"
        else:
            invariant, reason = judge(statistic, destination)
        return Verdict(
            parameter=name,
            shape=tuple(parameter.shape),
            scale_invariant=invariant,
            statistic=statistic,
            batches=batches,
            reason=reason,
            norms=destination.norms if destination is not None and invariant else (),
        )


def judge(statistic: float | None, destination: Destination | None) -> tuple[bool | None, str]:
    """Decide by the gradient, unless the structure is certain; it also gives the reason.

    Args:
        statistic: Mean z² over batches; None if there was no gradient.
        destination: What the weight's output meets; None where it was not seen.

    Returns:
        Whether the weight is scale-invariant (None: unknown), and why.
    """
    if statistic is None:
        return None, "unknown: its gradient was zero in every batch"
    if destination is not None and destination.certain:
        return False, destination.reason
    no_norm = destination is not None and not destination.normalized
    if statistic < (Z2_ROUNDING if no_norm else Z2_LIMIT):
        if destination is None or no_norm:
            return True, "its gradient is tangential, though no norm was found behind it"
        return True, destination.reason
    if destination is None:
        return False, "its gradient has a radial part"
    if no_norm:
        return False, destination.reason
    return False, (
        "its gradient has a radial part, though a norm follows: its eps is large, or it "
        "normalizes other weights' outputs together with this one's"
    )
