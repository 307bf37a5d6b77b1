"""What variance a norm sees, beside its eps: where scale invariance ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .module_hook import ModuleHook

Reader = Callable[[Any, Tensor], Tensor]


def _over_batch(norm: Any, x: Tensor) -> Tensor:
    return x.transpose(0, 1).flatten(1).var(1, correction=0)


def _over_groups(norm: Any, x: Tensor) -> Tensor:
    return x.reshape(len(x), norm.num_groups, -1).var(2, correction=0)


def _over_instances(norm: Any, x: Tensor) -> Tensor:
    return x.flatten(2).var(2, correction=0)


def _over_last(norm: Any, x: Tensor) -> Tensor:
    return x.flatten(-len(norm.normalized_shape)).var(-1, correction=0)


def _mean_square(norm: Any, x: Tensor) -> Tensor:
    return x.flatten(-len(norm.normalized_shape)).square().mean(-1)


_READERS: list[tuple[tuple[type, ...], Reader]] = [
    # SyncBatchNorm is one; a process's own share of the batch is as good here
    ((nn.modules.instancenorm._InstanceNorm,), _over_instances),
    ((nn.modules.batchnorm._BatchNorm,), _over_batch),
    ((nn.GroupNorm,), _over_groups),
    ((nn.LayerNorm,), _over_last),
    ((nn.RMSNorm,), _mean_square),
]


def variance_seen(norm: nn.Module, x: Tensor) -> Tensor | None:
    """Median, over what a norm divides apart, of the variance (RMSNorm: the mean square).

    Args:
        norm: A BatchNorm, InstanceNorm, GroupNorm, LayerNorm or RMSNorm module; what has
            groups is called by that, subclasses included.
        x: Its input, as it comes: (batch, channels, …) or (…, normalized_shape).

    Returns:
        Shape (), on the input's device; None for other modules.

    >>> x = torch.tensor([[1.0, 3.0], [0.0, 0.0], [0.0, 4.0]])
    >>> variance_seen(nn.LayerNorm(2), x)
    tensor(1.)
    """
    read = _reader(norm)
    return None if read is None else read(norm, x.detach().float()).median()


def _reader(norm: nn.Module) -> Reader | None:
    return next((read for kinds, read in _READERS if isinstance(norm, kinds)), None)


def running_variance(norm: nn.Module) -> Tensor | None:
    """Median over channels of the running variance, or None for a norm that keeps none."""
    variance = dict(norm.named_buffers(recurse=False)).get("running_var")
    return None if variance is None else variance.median()


class VarianceReader:
    """Reads the variances that norms see, seldom, and all in one copy from the device.

    Running variances are there at any time. Norms that keep none are asked: they look at
    the next forward's input, and the reading after that knows.

    Args:
        norms: The norm modules.
    """

    def __init__(self, norms: Iterable[nn.Module]) -> None:
        self._norms = list(dict.fromkeys(norms))
        self.silent = {n for n in self._norms if running_variance(n) is None and _reader(n)}
        """Those that must be asked."""
        self.asked = False
        self._seen: dict[nn.Module, Tensor] = {}
        self._handles: dict[nn.Module, Any] = {}

    def ask(self) -> None:
        """Have the silent norms look at the next forward's input."""
        self.asked = bool(self.silent)
        for norm in self.silent - self._handles.keys():
            self._handles[norm] = norm.register_forward_pre_hook(ModuleHook(self._look))

    def _look(self, norm: nn.Module, args: Any) -> None:
        if norm.training and args and norm in self._handles:
            self._handles.pop(norm).remove()
            variance = variance_seen(norm, args[0])
            if variance is not None:
                self._seen[norm] = variance

    def read(self) -> dict[nn.Module, float]:
        """Return the variances known now; the one place where the host waits for the device.

        In a distributed run the smallest among the processes: all must decide alike, so
        all must ask and read at the same steps.
        """
        self.close()
        found = [self._seen.pop(n) if n in self._seen else running_variance(n) for n in self._norms]
        device = next((value.device for value in found if value is not None), None)
        if device is None:
            return {}
        unknown = torch.tensor(math.inf, dtype=torch.float64, device=device)
        values = torch.stack([unknown if v is None else v.to(unknown) for v in found])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(values, op=dist.ReduceOp.MIN)
        read = zip(self._norms, values.tolist(), strict=True)
        return {norm: value for norm, value in read if value < math.inf}

    def close(self) -> None:
        """Ask no more."""
        self.asked = False
        for handle in self._handles.values():
            handle.remove()
        self._handles = {}


def smallest_factor(norm: nn.Module, variance: float, share: float) -> float:
    """Factor on a norm's input from which on eps is more than a share of the variance.

    >>> round(smallest_factor(nn.BatchNorm2d(4, eps=1e-5), 0.1, 0.01), 9)
    0.1
    """
    eps = getattr(norm, "eps", None) or 0.0
    if not variance > 0:
        return math.inf if eps else 0.0
    return math.sqrt(eps / (share * variance))
