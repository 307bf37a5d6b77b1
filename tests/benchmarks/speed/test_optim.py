from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.speed import optim
from benchmarks.speed.optim import GROUPINGS, StepTimes, report, summary, time_in_turns
from benchmarks.speed.optimizers import (
    COPY,
    FUSED_ADAMW,
    TIMM_ADAMP,
    TIMM_LION,
    YARDSTICKS,
    Contender,
    contenders,
    group_per_parameter,
    not_installed,
    two_groups,
)
from benchmarks.speed.parameter_sets import SETS, random_parameters

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TINY = {"a.weight": (64, 32, 3, 3), "a.bias": (64,), "b.weight": (10, 64)}
ELEMENTS = 64 * 32 * 9 + 64 + 640


def times(seconds: dict[str, list[float]]) -> StepTimes:
    """One round of each step takes a second, but for what is given."""
    steps = [row.step for row in contenders()]
    assert set(seconds) <= set(steps)
    everything = {step: [1.0] for step in steps} | seconds
    kept, passing = dict.fromkeys(steps, 1.0), dict.fromkeys(steps, 0.25)
    return StepTimes("net", "groups", 3, ELEMENTS, everything, kept, passing)


def test_command_times_all_in_both_groupings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SETS, "tiny", lambda: TINY)
    monkeypatch.setattr(optim, "ALSO_PER_PARAMETER", ("tiny",))
    file = tmp_path / "new" / "figures.json"
    command = ["speed", "optim", "--model", "tiny", "--device", "cpu", "--rounds", "5"]
    assert main([*command, "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "`python -m benchmarks speed optim --model tiny --device cpu --threads" in printed
    assert "## tiny: 0.0 M in 3 tensors, two groups (matrices, others)" in printed
    assert "## tiny: 0.0 M in 3 tensors, a group per parameter" in printed
    assert "on a GPU: not measured" in printed
    for row in contenders():
        assert printed.count(f"| {row.name} | {row.form} |") == 2
    figures = json.loads(file.read_text())
    assert figures["limits"]["LionAR per tensor, fast"] == {TIMM_LION: 1.2, TIMM_ADAMP: 1.0}
    assert [steps["grouping"] for steps in figures["steps"]] == list(GROUPINGS)
    for steps in figures["steps"]:
        assert steps["elements"] == ELEMENTS
        for row in contenders():
            seconds = steps["seconds"][row.step]
            assert len(seconds) == (optim.REFERENCE_ROUNDS if row.form == "reference" else 5)
            assert min(seconds) > 0
        kept = steps["kept"]
        assert kept["copy of the weights, floor"] == kept["torch SGD, foreach"] == 1
        assert kept["timm AdamP, loop"] == 2
        assert kept[FUSED_ADAMW] == pytest.approx(2, abs=0.01)  # and a step count each
        assert kept["LionAR per tensor, fast"] == pytest.approx(1, abs=0.1)
        assert kept["RotationalAdamW, fast"] == pytest.approx(2, abs=0.2)  # and norms per row
        assert kept["RotationalAdamW, reference"] == kept["RotationalAdamW, fast"]
        stand_ins = kept["torch SGD, foreach, in RotationalUpdate, fast"]
        assert stand_ins == pytest.approx(2, abs=0.2)
        passing = steps["passing"]
        assert passing[FUSED_ADAMW] < 0.1  # in place
        assert passing[TIMM_LION] == pytest.approx(1, abs=0.1)  # all updates at once


def test_both_published_networks_are_timed_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []

    def pretend(model: str, grouping: str, *_: object) -> StepTimes:
        timed.append((model, grouping))
        return times({})

    monkeypatch.setattr(optim, "time_steps", pretend)
    assert main(["speed", "optim", "--device", "cpu"]) == 0
    two, each = GROUPINGS
    assert timed == [
        *(("resnet50", two), ("resnet50", each), ("mask-rcnn", two), ("gpt2-124m", two))
    ]


def test_missing_peers_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lion_pytorch.foreach", None)
    assert main(["speed", "optim", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "pip install timm lion-pytorch" in error
    assert error.count("\n") == 1


def test_yardsticks_are_among_what_is_timed() -> None:
    assert set(YARDSTICKS) <= {row.step for row in contenders()}


def test_who_is_held_to_what() -> None:
    rows = {row.step: row.limits for row in contenders() if row.limits}
    rotational = {"RotationalSGD", "RotationalAdamW", "RotationalLion"}
    ours = {*rotational, "LionAR per tensor", "LionAR per neuron"}
    assert set(rows) == {f"{name}, fast" for name in ours}
    for limits in rows.values():
        assert limits["cpu"][TIMM_ADAMP] == 1.0
    lions = {"LionAR per tensor, fast", "LionAR per neuron, fast"}
    assert {step for step, limits in rows.items() if TIMM_LION in limits["cpu"]} == lions
    on_gpu = {step: limits["cuda"][FUSED_ADAMW] for step, limits in rows.items()}
    others = dict.fromkeys(("RotationalSGD, fast", "RotationalLion, fast"), 1.5)
    assert on_gpu == dict.fromkeys(lions, 1.0) | others | {"RotationalAdamW, fast": 1.3}
    assert all(rows[step]["cpu"][TIMM_LION] == 1.2 for step in lions)


def test_the_floor_is_what_moving_the_bytes_takes() -> None:
    """A copy moves 8 bytes a weight, a step of one moment 20, of two 28."""
    rows = {row.step: row for row in contenders()}
    result = times({COPY.step: [1.0], "LionAR per neuron, fast": [5.0], FUSED_ADAMW: [7.0]})
    assert result.over_the_floor(rows["LionAR per neuron, fast"]) == [2.0]
    assert result.over_the_floor(rows[FUSED_ADAMW]) == [2.0]
    assert result.over_the_floor(COPY) == [1.0]


def test_peers_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "heavyball", None)
    assert "heavyball" in not_installed()
    lines = report([], [times({})], contenders(), CPU)
    assert "- heavyball: not installed, not measured" in lines


@pytest.mark.parametrize(("seconds", "holds"), [(1.1, True), (1.3, False)])
def test_a_limit_fails_by_the_median_of_its_rounds(seconds: float, holds: bool) -> None:
    result = times(
        {
            "LionAR per tensor, fast": [seconds, seconds, 0.1, 9.0, seconds],
            TIMM_LION: [1.0] * 5,
            TIMM_ADAMP: [10.0] * 5,
        }
    )
    said = summary([result], contenders(), CPU)
    name = f"LionAR per tensor, fast / {TIMM_LION}, net, groups"
    assert said[0] == f"- limits: {7 if holds else 6} of 7 hold"
    assert (f"- FAILS: {name}" in said) is not holds
    row = next(
        line for line in report([], [result], contenders(), CPU) if "per tensor | fast" in line
    )
    assert ("≤ 1.2 holds" in row, "≤ 1.2 FAILS" in row) == (holds, not holds)
    assert "≤ 1 holds" in row


def test_a_gpu_is_judged_by_its_own_limit() -> None:
    result = times({"RotationalSGD, fast": [1.6], TIMM_ADAMP: [0.1]})
    said = summary([result], contenders(), CUDA)
    assert said[:3] == [
        "- limits: 4 of 5 hold",
        f"- FAILS: RotationalSGD, fast / {FUSED_ADAMW}, net, groups",
        "- no fast step waited for the GPU (torch.cuda.set_sync_debug_mode)",
    ]


def test_no_limit_is_about_references() -> None:
    slow = {row.step: [99.0] for row in contenders() if row.form == "reference"}
    lines = report([], [times(slow)], contenders(), CPU)
    assert "- limits: 7 of 7 hold" in lines
    assert not any("FAILS" in line for line in lines)


def test_steps_take_turns_and_keep_their_own_time() -> None:
    turns: list[str] = []

    def step(name: str, seconds: float) -> Callable[[], None]:
        def work() -> None:
            turns.append(name)
            time.sleep(seconds)

        return work

    named = [("a", "fast"), ("b", "reference"), ("c", "loop")]
    rows = [Contender(name, form, torch.optim.SGD) for name, form in named]
    sleeps = dict(zip(rows, (0.0, 0.03, 0.06), strict=True))
    steps = {row: step(row.name, seconds) for row, seconds in sleeps.items()}
    seconds = time_in_turns(steps, CPU, 5)
    assert [len(figures) for figures in seconds.values()] == [5, 3, 5]
    assert "".join(turns) == "abc bca cab abc bca ca ac".replace(" ", "")
    assert median(seconds["a, fast"]) < 0.03 <= min(seconds["b, reference"])
    assert min(seconds["c, loop"]) >= 0.06


def test_ratios_pair_a_round_with_the_same_round() -> None:
    result = times({"LionA, reference": [2.0, 8.0], TIMM_ADAMP: [1.0, 2.0, 100.0]})
    assert result.ratios("LionA, reference", TIMM_ADAMP) == [2.0, 4.0]


@pytest.mark.parametrize("make_groups", [two_groups, group_per_parameter])
def test_groups_decay_matrices_and_hold_everything(
    make_groups: Callable[..., list[dict]],
) -> None:
    named = random_parameters(TINY, CPU)
    groups = make_groups(named)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {id(p): 0.1 if "weight" in name else 0.0 for name, p in named}
    assert len(groups) == (2 if make_groups is two_groups else 3)


@pytest.mark.parametrize("row", contenders(), ids=lambda row: row.step)
def test_every_contender_steps_and_none_runs_away(row: Contender) -> None:
    weights = [p for _, p in random_parameters(TINY, CPU)]
    before = [weight.detach().clone() for weight in weights]
    gradients = [weight.grad.clone() for weight in weights if weight.grad is not None]
    optimizer = row.build([{"params": weights, "weight_decay": 0.1}])
    for _ in range(100):
        getattr(optimizer, row.method)()
    moved = any(not torch.equal(w, old) for w, old in zip(weights, before, strict=True))
    assert moved is (row.form != "floor")
    for weight, gradient in zip(weights, gradients, strict=True):
        assert weight.grad is not None
        assert torch.equal(weight.grad, gradient)  # the others' as well
    for weight, old in zip(weights, before, strict=True):
        assert float(weight.detach().norm()) == pytest.approx(float(old.norm()), rel=0.01)


def test_forms_of_one_optimizer_share_its_state() -> None:
    fast, reference = (row for row in contenders() if row.name == "RotationalAdamW")
    assert fast.build is reference.build
    builds = [row.build for row in contenders() if row.form != "reference"]
    assert len(set(builds)) == len(builds)
