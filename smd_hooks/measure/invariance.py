"""Which weights are scale-invariant, as which unit, and if not, why.

L(w) = L(k·w) for all k > 0 means ⟨w, g⟩ = 0. Real gradients miss zero by rounding, and
an unrelated gradient meets it by chance in one of twelve batches; the mean over batches
of z² = ⟨w,g⟩²/Σ(wᵢgᵢ)² tells them apart by five orders of magnitude (3e-6 against 0.3).
The same is asked of each row of the matrix (filter, neuron), and of weights that one
norm joins. Where gradient and graph disagree, the function itself is asked.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .autograd_graph import Graph, tensors
from .functional import ForwardCall, ScaleResponse, scale_response
from .joint_groups import Candidate, JointGroup, candidates
from .module_hook import ModuleHook
from .parameters import is_matrix_shape, is_measurable
from .sharding import whole
from .stepping import AroundStep, closure_of, with_closure
from .structure import Destination, destinations
from .verdict import (
    Z2_LIMIT,
    Verdict,
    is_tie,
    judge,
    largest_row_statistic,
    tensor_statistic,
)

BATCHES = 8
"""Batches that a verdict rests on."""
PATIENCE = 4 * BATCHES
"""Steps of each optimizer after which weights that rarely have a gradient are not waited for."""
FUNCTIONAL_TESTS = 8
"""Ties of one observation that the function is asked about, four forward passes each."""


class ScaleInvarianceObserver:
    """Watches some training steps and says which weights are scale-invariant.

    The gradients are those of training and the reasons come from the graph of one
    training forward; passes of its own are made only by :meth:`verdicts`, and only for
    weights on which gradient and graph disagree, the first :data:`FUNCTIONAL_TESTS` of
    them. While it watches it reads nothing back from the device. Once ``done`` it
    watches nothing more.

    Models whose own forward is never called (GANs whose ``train_step`` calls generator
    and discriminator) are read through the calls of their direct children.

    Args:
        model: The model that is trained, in train mode and unwrapped (no DDP).
        optimizers: Its optimizer, or all of them.

    Example::

        observer = ScaleInvarianceObserver(model, optimizer)
        ...  # some training steps
        if observer.done:
            observer.detach()
            verdicts = observer.verdicts()

    Source: z² and its limits derived; units and joint vectors: Wan et al., *Spherical
    Motion Dynamics*, §2 (Definition 1) applied to rows and to concatenated weights.
    """

    def __init__(self, model: nn.Module, optimizers: Optimizer | Sequence[Optimizer]) -> None:
        self.model = model
        self.done = False
        self.steps = 0
        """Optimizer steps watched so far, those of all optimizers."""
        several = [optimizers] if isinstance(optimizers, Optimizer) else list(optimizers)
        self._watched: dict[Optimizer, dict[str, nn.Parameter]] = {}
        for optimizer in several:
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            self._watched[optimizer] = {n: p for n, p in model.named_parameters() if id(p) in held}
        self._steps_of = dict.fromkeys(several, 0)
        # per weight and step of its optimizer: Σwg and √Σ(wg)² of each row
        self._rows: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
        self._destinations: dict[str, Destination] = {}
        self._candidates: dict[tuple[str, ...], Candidate] = {}
        self._calls: dict[nn.Module, ForwardCall] = {}
        self._responses: dict[str, ScaleResponse | str] = {}
        self._warned = False
        self._asks_children = False
        self._handles: list[Any] = [AroundStep(o, self._before_step) for o in several]
        self._watch_forward(model)

    def detach(self) -> None:
        """Stop watching; verdicts then rest on what was seen."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.done = True

    # ----------------------------------------------------------------------- watching

    def _watch_forward(self, module: nn.Module) -> None:
        hook = ModuleHook(self._after_forward)
        try:
            self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        except RuntimeError as error:  # a ScriptModule has no hooks
            self._cannot_read(error)

    def _after_forward(self, module: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        if self.done or not module.training or not torch.is_grad_enabled():
            return
        try:
            self._read(module, args, kwargs, outputs)
        except Exception as error:  # whatever a graph holds, the user's training goes on
            self._cannot_read(error)

    def _cannot_read(self, error: Exception) -> None:
        """Go on with the gradients alone, and say so once."""
        if not self._warned:
            warnings.warn(
                "ScaleInvarianceObserver: the model's forward cannot be looked into, and verdicts "
                f"rest on gradients alone ({_line(error)})",
                stacklevel=2,
            )
        self._warned = True

    def _read(self, module: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        if not any(t.grad_fn is not None for t in tensors(outputs)):
            return  # a preprocessor, say
        self._calls[module] = ForwardCall.of(module, args, kwargs)
        # optimizers take turns with their weights, so that one step shows not all of them
        if min(self._steps_of.values()) < 2 and not self._matrices() <= self._destinations.keys():
            graph = Graph.of(outputs, self.model)
            self._destinations = destinations(graph) | self._destinations
            self._candidates = {c.members: c for c in candidates(graph)} | self._candidates

    def _matrices(self) -> set[str]:
        held = [item for own in self._watched.values() for item in own.items()]
        return {name for name, p in held if is_measurable(p)}

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        if self.done:  # a hook cannot remove itself while the optimizer walks its hooks
            return None
        closure = closure_of(args, kwargs)
        if closure is None:
            self._take(optimizer)
            return None
        # the gradient of this step is made inside it

        def observed() -> Any:
            loss = closure()
            self._take(optimizer)
            return loss

        return with_closure(observed, args, kwargs)

    @torch.no_grad()
    def _take(self, optimizer: Optimizer) -> None:
        step = self._steps_of[optimizer]
        for name, weight in self._watched[optimizer].items():
            if not is_measurable(weight) or weight.grad is None or weight.grad.is_sparse:
                continue
            products = weight.detach().double() * weight.grad  # double() copies no float64
            row = tuple(range(1, weight.ndim))
            sums = products.sum(row), torch.linalg.vector_norm(products, dim=row)
            self._rows.setdefault(name, {})[step] = sums
        self._steps_of[optimizer] += 1
        self.steps += 1
        if not self._calls and not self._asks_children:
            self._asks_children = True
            for child in self.model.children():
                self._watch_forward(child)
        slowest = min(self._steps_of.values())
        enough = slowest >= BATCHES and all(len(s) >= BATCHES for s in self._rows.values())
        # an optimizer that never steps must not keep the others waiting
        if (enough and self._rows) or self.steps >= PATIENCE * len(self._steps_of):
            self.done = True

    # ----------------------------------------------------------------------- verdicts

    def verdicts(self) -> list[Verdict]:
        """Return one verdict per parameter of the model, in the model's order.

        To be called between two steps, not between forward and backward, and where
        weights are sharded (FSDP2) on every process. The batch that was kept for the
        functional test is released.
        """
        verdicts = [self._verdict(name, p) for name, p in self.model.named_parameters()]
        if self.done:
            self._calls = {}
        partners = {name: group for group in self.groups() for name in group.members}
        return [
            replace(v, reason=f"scale-invariant only jointly with {partners[p].others(p)}")
            if (p := v.parameter) in partners and v.scale_invariant is False
            else v
            for v in verdicts
        ]

    def groups(self) -> list[JointGroup]:
        """Return the joint groups whose gradients confirm what the graph suggests."""
        found = []
        for candidate in self._candidates.values():
            statistic, batches = self._joint_statistic(candidate)
            if statistic is not None and statistic < Z2_LIMIT:
                where = f"normalized by {', '.join(candidate.norms)}" if candidate.norms else ""
                reason = f"summed before a norm{where and ': '}{where}"
                members, norms = candidate.members, candidate.norms
                found.append(JointGroup(members, statistic, batches, norms, reason))
        return found

    def _joint_statistic(self, candidate: Candidate) -> tuple[float | None, int]:
        """Mean joint z² and its batches; None if a member is unwatched or does not need it."""
        rows = [self._rows.get(name) for name in candidate.members]
        alone = [tensor_statistic(self._products(name))[0] for name in candidate.members]
        if None in rows or any(z2 is not None and z2 < Z2_LIMIT for z2 in alone):
            return None, 0
        common = sorted(set.intersection(*(set(r) for r in rows if r is not None)))
        members = [self._products(name, common) for name in candidate.members]
        return tensor_statistic(torch.cat(members, 2)) if common else (None, 0)

    def _products(self, name: str, steps: Sequence[int] | None = None) -> Tensor:
        """Σwg and √Σ(wg)² of each row and batch, on the host: (2, batches, rows)."""
        rows = self._rows.get(name, {})
        pairs = [rows[step] for step in (rows if steps is None else steps)]
        chosen = [torch.stack([whole(sums), whole(norms)]) for sums, norms in pairs]
        return torch.stack(chosen, 1).cpu() if chosen else torch.zeros(2, 0, 1).double()

    def _verdict(self, name: str, parameter: Tensor) -> Verdict:
        products = self._products(name)
        statistic, batches = tensor_statistic(products)
        filter_statistic = None
        destination, response = self._destinations.get(name), None
        invariant: bool | None = False
        if not is_matrix_shape(parameter.shape):
            reason = "gain or bias, not a weight matrix"
        elif not parameter.requires_grad and not batches:
            reason = "frozen (requires_grad=False)"
        elif not any(name in own for own in self._watched.values()):
            reason = "not handed to the optimizer"
        else:
            if is_tie(statistic, destination):
                response = self._response(name, parameter)
            invariant, reason = judge(statistic, destination, response)
            if parameter.shape[0] > 1:
                filter_statistic = largest_row_statistic(products)
        per_filter = None
        if invariant is not None and filter_statistic is not None:
            per_filter = invariant and filter_statistic < Z2_LIMIT
        return Verdict(
            parameter=name,
            shape=tuple(parameter.shape),
            scale_invariant=invariant,
            statistic=statistic,
            batches=batches,
            reason=reason,
            norms=destination.norms if destination is not None and invariant else (),
            per_filter=per_filter,
            filter_statistic=filter_statistic,
            functional_change=response.change if isinstance(response, ScaleResponse) else None,
        )

    def _response(self, name: str, parameter: Tensor) -> ScaleResponse | str | None:
        """Ask the function; in words why it gave no answer, None if it cannot be asked."""
        if name in self._responses:
            return self._responses[name]
        call = self._calls.get(self.model)
        if call is None:
            child = getattr(self.model, name.partition(".")[0], None)
            call = self._calls.get(child)  # type: ignore[arg-type]
        # a norm over processes would wait for the others, which run nothing here
        if call is None or (
            torch.distributed.is_available()
            and torch.distributed.is_initialized()
            and torch.distributed.get_world_size() > 1
        ):
            return None
        if len(self._responses) >= FUNCTIONAL_TESTS:
            return f"its gradient's word: the function was asked about {FUNCTIONAL_TESTS} others"
        try:
            self._responses[name] = scale_response(call, parameter)
        except Exception as error:  # whatever a user's model raises when it is called again
            self._responses[name] = f"the functional test failed: {_line(error)}"
        return self._responses[name]


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
