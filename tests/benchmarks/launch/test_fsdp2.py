"""Sharded weights on disk and off it, what may and may not be done with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lion_pytorch import Lion
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner.checkpoint import load_state_dict
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, AdamW, Optimizer

from benchmarks.errors import UsageError
from benchmarks.launch.fsdp2 import (
    FSDP2,
    _blocks,
    cut_optimizer_state,
    gathered,
    is_fsdp2,
    refuse_what_copies_the_model,
)
from smd_hooks.optim import LionAR, RotationalAdamW, RotationalSGD
from tests.benchmarks.launch.group_norm_net import GroupNormClassifier
from tests.measure.processes import PROCESSES, on_two_processes

BEFORE, AFTER, BATCH = 3, 3, 4
OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "SGD": (SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "AdamW": (AdamW, {"weight_decay": 0.1}),
    "Lion": (Lion, {"weight_decay": 0.1}),
    "LionAR": (LionAR, {"weight_decay": 0.1}),
    "RotationalSGD": (RotationalSGD, {"weight_decay": 0.1}),
    "RotationalAdamW per tensor": (RotationalAdamW, {"weight_decay": 0.1, "per_neuron": False}),
}


class Net(BaseModel):
    """Its last weight has a single row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            GroupNormClassifier.build_network("", 5, {}), nn.Linear(5, 1, bias=False)
        )

    def init_weights(self) -> None:
        self.network[1].weight.data.fill_(0.5)

    def forward(self, inputs: Tensor, mode: str = "tensor") -> Any:
        outputs = self.network(inputs)
        return {"loss": outputs.square().mean()} if mode == "loss" else outputs


def halves(first: int, last: int, rank: int) -> Iterator[dict[str, Tensor]]:
    """This process's half of each batch."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(BATCH, 1, 12, 12, generator=generator)
        yield {"inputs": images.chunk(PROCESSES)[rank]}


def made(name: str) -> tuple[FSDP2, OptimWrapper]:
    kind, options = OPTIMIZERS[name]
    model = FSDP2(Net())
    return model, OptimWrapper(kind(model.parameters(), lr=0.01, **options))


def train(model: nn.Module, wrapper: OptimWrapper, first: int, last: int, rank: int) -> None:
    for half in halves(first, last, rank):
        model.train_step(half, wrapper)


# ------------------------------------------------------------------------------ checkpoints


def saved_and_resumed(rank: int, folder: str) -> dict[str, tuple[bool, list[str]]]:
    """By optimizer: whether weights end equal, and what its checkpoint holds that is no tensor."""
    found = {}
    for name in OPTIMIZERS:
        model, wrapper = made(name)
        train(model, wrapper, 0, BEFORE, rank)
        path = Path(folder) / f"{name}.pth"
        with gathered(model, wrapper):
            checkpoint = {
                "state_dict": model.module.state_dict(),
                "optimizer": wrapper.state_dict(),
            }
            if rank == 0:
                torch.save(checkpoint, path)
        torch.distributed.barrier()
        train(model, wrapper, BEFORE, BEFORE + AFTER, rank)

        resumed, other = made(name)
        loaded = torch.load(path, weights_only=True)
        states = loaded["optimizer"]["state"].values()
        kept = {type(value).__name__ for state in states for value in state.values()}
        load_state_dict(resumed.module, loaded["state_dict"], strict=True)
        cut_optimizer_state(loaded, other)
        other.load_state_dict(loaded["optimizer"])
        train(resumed, other, BEFORE, BEFORE + AFTER, rank)
        pairs: Any = zip(model.parameters(), resumed.parameters(), strict=True)
        equal = all(torch.equal(a.to_local(), b.to_local()) for a, b in pairs)
        found[name] = equal, sorted(kept)
    return found


@pytest.mark.slow
def test_each_optimizer_goes_on_bit_by_bit_from_whole_tensors(tmp_path: Path) -> None:
    for told in on_two_processes(tmp_path, saved_and_resumed, str(tmp_path)):
        assert told.keys() == OPTIMIZERS.keys()
        for name, (equal, kinds) in told.items():
            assert equal, name
            assert kinds == ["Tensor"], name
    for name, (kind, options) in OPTIMIZERS.items():
        # one process reads the same file as its own, and writes its like
        model = Net()
        model.init_weights()
        optimizer = kind(model.parameters(), lr=0.01, **options)
        checkpoint = torch.load(tmp_path / f"{name}.pth", weights_only=True)
        model.load_state_dict(checkpoint["state_dict"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        OptimWrapper(optimizer).update_params(model(**next(halves(0, 1, 0)), mode="loss")["loss"])
        shapes = [
            {key: value.shape for key, value in state.items() if torch.is_tensor(value)}
            for state in checkpoint["optimizer"]["state"].values()
        ]
        own = [
            {key: value.shape for key, value in state.items() if torch.is_tensor(value)}
            for state in optimizer.state_dict()["state"].values()
        ]
        assert shapes == own, name


def several_optimizers(rank: int) -> bool:
    """An OptimWrapperDict's state is cut optimizer by optimizer."""
    model = FSDP2(Net())
    first, *others = model.parameters()
    wrappers = OptimWrapperDict(
        one=OptimWrapper(SGD([first], lr=0.1, momentum=0.9)),
        rest=OptimWrapper(AdamW(others, lr=0.1)),
    )
    loss = model(**next(halves(0, 1, rank)), mode="loss")["loss"]
    loss.backward()
    for wrapper in wrappers.values():
        wrapper.step()
    with gathered(model, wrappers):
        whole = wrappers.state_dict()
    if rank:  # only the first process has the values: give the other its own of the right shape
        for name in ("one", "rest"):
            for key, parameter in enumerate(wrappers[name].optimizer.param_groups[0]["params"]):
                state = whole[name]["state"][key]
                whole[name]["state"][key] = {
                    k: torch.zeros(parameter.shape) if v is None else v for k, v in state.items()
                }
    cut_optimizer_state({"optimizer": whole}, wrappers)
    return all(
        torch.equal(value.to_local(), wrapper.optimizer.state[parameter][key].to_local())
        for name, wrapper in wrappers.items()
        for number, parameter in enumerate(wrapper.optimizer.param_groups[0]["params"])
        for key, value in whole[name]["state"][number].items()
        if key != "step"
    )


# ----------------------------------------------------------------- what else steps weights


def overflowing(rank: int) -> tuple[bool, bool, float]:
    """Mixed precision: one process's infinity is everybody's skipped step.

    MMEngine's AmpOptimWrapper asks for a GPU; what it calls is called here.
    """
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
    model, wrapper = made("SGD")
    before = [p.to_local().clone() for p in model.parameters()]  # type: ignore[attr-defined]

    def step(factor: float) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**next(halves(0, 1, rank)), mode="loss")["loss"]
        scaler.scale(loss * factor).backward()
        scaler.unscale_(wrapper.optimizer)
        scaler.step(wrapper.optimizer)
        scaler.update()
        wrapper.zero_grad()

    step(float("inf") if rank else 1.0)
    pairs: Any = zip(before, model.parameters(), strict=True)
    skipped = all(torch.equal(a, b.to_local()) for a, b in pairs)
    scale = scaler.get_scale()
    step(1.0)
    pairs = zip(before, model.parameters(), strict=True)
    return skipped, any(not torch.equal(a, b.to_local()) for a, b in pairs), scale


def accumulated(rank: int) -> bool:
    """Two halves of a batch one after the other step as DDP does; and clipped."""
    ends = []
    for wrap in (FSDP2, in_ddp):
        model = wrap(Net())
        wrapper = OptimWrapper(
            SGD(model.parameters(), lr=0.1), accumulative_counts=2, clip_grad={"max_norm": 0.01}
        )
        inner = model.module
        for half in halves(0, 4, rank):
            with wrapper.optim_context(model):
                loss = model(**half, mode="loss")["loss"]
            wrapper.update_params(loss)
        weights = [getattr(p, "full_tensor", lambda p=p: p)() for p in inner.parameters()]
        ends.append(torch.cat([w.detach().flatten() for w in weights]))
    return torch.allclose(*ends, rtol=1e-5, atol=1e-7)


def in_ddp(model: Net) -> DistributedDataParallel:
    model.init_weights()
    return DistributedDataParallel(model)


def outside_of_training(rank: int) -> bool:
    """A prediction leaves the model with the parameters that the optimizer holds."""
    model, wrapper = made("SGD")
    held = {id(p) for group in wrapper.optimizer.param_groups for p in group["params"]}
    model.eval()
    with torch.no_grad():
        model(**next(halves(0, 1, rank)))
        gathered_now = {id(p) for p in model.parameters()} != held
        model.val_step(next(halves(0, 1, rank)))
    return gathered_now and {id(p) for p in model.parameters()} == held


def rest(rank: int) -> dict[str, Any]:
    return {
        "several": several_optimizers(rank),
        "overflow": overflowing(rank),
        "accumulated": accumulated(rank),
        "outside": outside_of_training(rank),
    }


@pytest.mark.slow
def test_what_else_steps_weights_works_on_shards(tmp_path: Path) -> None:
    for told in on_two_processes(tmp_path, rest):
        assert told["several"]
        assert told["overflow"] == (True, True, 2.0)
        assert told["accumulated"]
        assert told["outside"]


# ---------------------------------------------------------------------- without processes


def test_what_is_gathered_by_itself() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    layer = nn.Module()
    layer.inside = nn.ModuleList([inner, GroupNormClassifier.build_network("", 2, {})[3]])
    empty = nn.Module()
    empty.child = nn.ReLU()
    model = nn.Sequential(layer, empty, layer, nn.Linear(2, 2))
    assert _blocks(model) == [layer.inside[1], layer]


@pytest.mark.parametrize("asked", [None, {"type": "MMDistributedDataParallel"}, {}])
def test_who_does_not_ask_for_it(asked: Any) -> None:
    assert not is_fsdp2(asked)


@pytest.mark.parametrize("asked", [{"type": "FSDP2"}, {"type": FSDP2}])
def test_who_asks_for_it(asked: Any) -> None:
    assert is_fsdp2(asked)


def test_hooks_that_copy_the_model_are_refused() -> None:
    refuse_what_copies_the_model(None)
    refuse_what_copies_the_model([{"type": "SMDHook", "interval": 1}])
    with pytest.raises(UsageError, match="EMAHook copies the model, which FSDP2 cannot") as error:
        refuse_what_copies_the_model([{"type": "SMDHook"}, {"type": "EMAHook"}])
    assert "\n" not in str(error.value)
