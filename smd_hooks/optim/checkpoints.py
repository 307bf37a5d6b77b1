"""What a loaded optimizer state must fit, and what torch's loading leaves undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..measure.parameters import plain_name
from .members import Members
from .state import per_unit

DECAYS = ("beta", "betas", "momentum")
"""Settings of which one is in the groups of any optimizer that has it."""
PER_UNIT = ("radius", "update_norm", "angle_factor")
"""Entries that stay float32 whatever the parameter's dtype."""
TOLERANCE = {True: 1e-4, False: 2e-2}
"""By how much norms may differ from their radii, in float32 or better, and below it."""


def refuse_other_groups(
    optimizer: Optimizer, state_dict: Mapping[str, Any], buffers: Sequence[str]
) -> None:
    """Refuse a state dict of another optimizer, or of groups in another order.

    Raises:
        ValueError: One line: what does not fit.
    """
    who = type(optimizer).__name__
    hint = "it was made with other parameter groups, or another order of them"
    foreign = "it was made by another optimizer; start without its state"
    groups, saved = optimizer.param_groups, state_dict["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in saved]:
        sizes = [[len(group["params"]) for group in side] for side in (saved, groups)]
        raise ValueError(
            f"{who}: the state dict has groups of {_short(sizes[0])} parameters, the optimizer "
            f"of {_short(sizes[1])}: {hint}"
        )
    for group, other in zip(groups, saved, strict=True):
        names, others = group.get("param_names") or (), other.get("param_names") or ()
        for name, found in zip(names, others, strict=False):
            if plain_name(name) != plain_name(found):
                raise ValueError(f"{who}: the state dict has {found} in place of {name}: {hint}")
        for name in DECAYS:
            if name in group and name not in other:
                raise ValueError(f"{who}: the state dict's groups have no {name}: {foreign}")
        for parameter, key in zip(group["params"], other["params"], strict=True):
            state = state_dict["state"].get(key)
            if not state:
                continue
            for name in (*buffers, "step"):
                if name not in state:
                    there = ", ".join(map(str, state))
                    raise ValueError(f"{who}: the state dict has no {name} but {there}: {foreign}")
            for name in buffers:
                if state[name].shape != parameter.shape:
                    shapes = tuple(state[name].shape), tuple(parameter.shape)
                    raise ValueError(
                        f"{who}: {name} number {key} in the state dict has shape {shapes[0]}, its "
                        f"parameter {shapes[1]}: {hint}"
                    )


def _short(sizes: Sequence[int]) -> str:
    text = ", ".join(map(str, sizes[:8]))
    return f"{text}, … ({len(sizes)} groups)" if len(sizes) > 8 else text


def adopt_loaded_state(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Undo torch's casts of what is not in the parameter's dtype, and move steps to devices."""
    saved = [key for group in state_dict["param_groups"] for key in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, key in zip(parameters, saved, strict=True):
        state = optimizer.state.get(parameter)
        if not state:
            continue
        for name in PER_UNIT:
            if name in state and parameter.dtype != torch.float32:
                state[name] = state_dict["state"][key][name].to(parameter.device, copy=True)
        step = torch.as_tensor(state["step"], dtype=torch.float32)
        state["step"] = step.to(parameter.device, copy=True)


def check_radii(who: str, members: Members, states: Mapping[Tensor, Mapping[str, Any]]) -> None:
    """Refuse to step weights whose norms are not the loaded radii.

    Names and shapes cannot tell two layers of one shape apart; their norms can.

    Raises:
        RuntimeError: One line: by how much, and what may have happened.
    """
    if not members.turning:
        return
    own = [states[parameter] for parameter in members.parameters]
    radius = per_unit(members, own, "radius")
    weights = members.weights()
    square = torch.cat([rows.double().square().sum(1) for rows in members.units.rows(weights)])
    sums = torch.zeros(len(square), 5, dtype=torch.float64, device=square.device)
    sums[:, 0] = square
    members.add_up_shards(sums)
    turns = members.turns & (radius > 0)
    off = torch.where(turns, sums[:, 0].sqrt() / torch.where(turns, radius, 1.0) - 1, 0.0)
    worst = float(off.abs().max())
    if not worst <= TOLERANCE[torch.finfo(weights[0].dtype).bits >= 32]:
        raise RuntimeError(
            f"{who}: a weight's norm differs by {worst:.2g} from the one in the loaded state: the "
            "state was made with other parameter groups, another order of them, or other weights; "
            "load the weights that were saved beside it before the first step"
        )
