from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.speed.train import command
from benchmarks.speed.train.command import CONTROL, NOTHING, PLAIN, Timing, verdicts
from benchmarks.speed.train.lanes import MEMORY, Lane, LaneEnded, Turns, environment, take_turns
from benchmarks.speed.train.phases import MEASURING, PHASES, REST, STEP, WHOLE, WRITING, Phases
from benchmarks.speed.train.pictures import OBJECTS, write_photos, write_scenes
from benchmarks.speed.train.switch import Switch

CPU = torch.device("cpu")


def test_phases_are_told_apart_and_the_rest_is_what_is_left() -> None:
    phases = Phases(CPU)
    step = phases.around(STEP, lambda: (phases.around(MEASURING, time.sleep)(0.02), 7)[1])
    phases.mark(WHOLE)
    time.sleep(0.03)
    assert step() == 7
    phases.mark(WHOLE)
    read = phases.read()
    assert read[MEASURING] == pytest.approx(0.02, abs=0.01)
    assert read[STEP] < 0.01  # but for the measuring
    assert read[REST] == pytest.approx(0.03, abs=0.01)
    assert sum(read[phase] for phase in PHASES) == pytest.approx(read[WHOLE])
    assert not any(phases.read().values())  # begun anew


def test_what_raises_ends_its_phase_too() -> None:
    phases = Phases(CPU)
    with pytest.raises(ZeroDivisionError):
        phases.around(STEP, lambda: 1 / 0)()
    phases.read()


def test_what_is_switched_off_is_not_called() -> None:
    switch, calls = Switch(), []
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    optimizer.register_step_pre_hook(lambda *_: calls.append("not gated"))
    switch.over_steps(optimizer)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    handle = optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    class Told(Hook):
        def before_train_iter(self, *_: Any) -> None:
            calls.append("iteration")

        def after_train_iter(self, *_: Any) -> None:
            calls.append("its end")

    hook = Told()
    switch.over_hook(hook)

    def iterate() -> list[str]:
        calls.clear()
        hook.before_train_iter(None)
        optimizer.step()
        hook.after_train_iter(None)
        return calls

    assert iterate() == ["iteration", "not gated", "before", "after", "its end"]
    switch.is_on = False
    assert iterate() == ["not gated"]
    switch.is_on = True
    handle.remove()
    assert iterate() == ["iteration", "not gated", "before", "its end"]


def test_pictures_are_of_the_usual_sizes(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    photos = sorted((tmp_path / "photos" / "train").glob("*/*.jpeg"))
    assert len(photos) == 3
    assert {Image.open(photo).size for photo in photos} == {(500, 375)}
    assert all(40_000 < photo.stat().st_size < 200_000 for photo in photos)
    write_scenes(tmp_path / "scenes", 2, ["cat", "dog"])
    found = json.loads((tmp_path / "scenes/annotations/instances_train2017.json").read_text())
    assert [category["name"] for category in found["categories"]] == ["cat", "dog"]
    assert len(found["annotations"]) == 2 * OBJECTS
    for one in found["annotations"]:
        x, y, w, h = one["bbox"]
        assert 0 <= x <= x + w <= 640
        assert 0 <= y <= y + h <= 480


def timing(model: str = "resnet50", measuring: float = 0.01, **factors: float) -> Timing:
    """Turns of a second each, but for those switched on that take so many times as long."""
    every = {NOTHING: 1.0, "interval 1": 1.0, "interval 50": 1.0, CONTROL: 1.08}
    every |= {PLAIN: 1.0} if model == "resnet50" else {}
    every |= {{"control": CONTROL}.get(k, k.replace("_", " ")): f for k, f in factors.items()}

    def turn(seconds: float, measuring: float = 0.0) -> dict[str, float]:
        return dict.fromkeys(PHASES, 0.0) | {WHOLE: seconds, MEASURING: measuring}

    noise = (0.99, 1.0, 1.01)
    on = {
        name: [turn(factor * (n if name == NOTHING else 1.0), measuring) for n in noise]
        for name, factor in every.items()
    }
    off = {name: [turn(1.0) for _ in noise] for name in every if name != PLAIN}
    return Timing(model, 16, Turns(on, off, dict.fromkeys(every, 2**31)))


def test_limits_are_held() -> None:
    cheap = verdicts(timing(interval_1=1.01), "cpu")
    assert cheap[0] == "equal steps: 0.9900–1.0101 times as long"  # and the other way
    assert cheap[1].endswith("1.0800 times as long: fails, as it must")
    assert cheap[2].startswith("interval 1, measuring and writing: 0.99 (")
    assert cheap[2].endswith("≤ 2 %: holds")
    assert cheap[3] == "interval 1, whole steps: 1.0100 times as long, ≤ 1.02: holds"
    # a 50th of interval 1's hundredth, which no turn was long enough to see
    assert "interval 50, whole steps: 1.0002 times as long" in cheap[4]
    assert "within the noise: holds (2.0e-04" in cheap[4]
    dear = verdicts(timing(interval_1=1.03, interval_50=1.02), "cpu")
    assert dear[3].endswith("FAILS")
    assert "within the noise: FAILS" in dear[4]
    assert "over the plain loop's: 0.971" in dear[5]
    assert len(verdicts(timing("mask-rcnn"), "cpu")) == 5
    # on a GPU a hundredth is too much for measuring and writing, whatever whole steps say
    assert verdicts(timing(measuring=0.02), "cuda")[2].endswith("≤ 1.01 %: FAILS")


def test_what_is_faster_than_noise_allows_holds_nothing() -> None:
    """A hook saves no time: steps that seem so differ in something else."""
    told = verdicts(timing(interval_1=0.82, interval_50=0.9), "cpu")
    assert "≤ 1.02: NOT TOLD: faster" in told[3]
    assert "within the noise: NOT TOLD: faster" in told[4]


def test_turns_that_cannot_see_the_control_tell_nothing() -> None:
    told = verdicts(timing(control=1.019, interval_1=1.001), "cpu")
    assert "DOES NOT FAIL" in told[1]
    assert all("NOT TOLD: the control does not fail" in line for line in told[3:5])
    assert "holds" in told[2]  # no comparison of whole steps


def test_turns_of_fifty_steps_hold_a_measured_one() -> None:
    told = verdicts(timing(interval_1=1.005, interval_50=1.001), "cuda")
    assert told[4].endswith("1.0010 times as long, within the noise: holds")
    assert told[5].endswith("≥ 1: FAILS")
    assert verdicts(timing(plain_torchvision_loop=1.1), "cuda")[5].endswith("≥ 1: holds")


def test_lanes_find_one_environment_and_leave_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")
    before = dict(os.environ)
    with environment(MEMORY):
        assert {name: os.environ[name] for name in MEMORY} == MEMORY
    assert dict(os.environ) == before


def test_what_different_lanes_told_is_put_together() -> None:
    one = Turns({"a": [{WHOLE: 1.0}]}, {"a": [{WHOLE: 2.0}]}, {"a": 5})
    both = one | Turns({"b": []}, {}, {"b": 6})
    assert both == Turns(one.on | {"b": []}, one.off, {"a": 5, "b": 6})


def test_a_training_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    lane = Lane("nowhere", None, {}, tmp_path / "no such folder", batch=2)
    with pytest.raises(LaneEnded, match="'nowhere' ended by itself"):
        take_turns([lane], CPU, 1, rounds=1, warm_up=0, steps=1)


def test_a_model_that_could_not_be_timed_is_told_beside_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def time_model(model: str, *_: Any) -> Timing:
        if model == "mask-rcnn":
            raise LaneEnded("the training 'interval 1' ended by itself")
        return timing()

    monkeypatch.setattr(command, "time_model", time_model)
    assert main(["speed", "train", "--device", "cpu"]) == 1
    told = capsys.readouterr().out
    assert "## resnet50, batch 16, 3 turns of each" in told
    for row in ("| interval 1 | on | 16 | 1e+03", "| interval 1 | off | 16 | 1e+03"):
        assert row in told
    assert f"| {PLAIN} |  | 16 |" in told
    assert "| 2.00 |" in told
    assert told.endswith("- mask-rcnn: not measured: the training 'interval 1' ended by itself\n")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet50", "mask-rcnn"])
def test_real_trainings_take_turns(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(command.BATCH["cpu"], "resnet50", 2)
    monkeypatch.setattr(command, "PICTURES", {"resnet50": 8, "mask-rcnn": 4})
    options_of = command.options_of

    def small(*which: Any) -> dict[str, Any]:
        options = options_of(*which)
        if model == "mask-rcnn":
            options["train_dataloader.dataset.pipeline.2.scale"] = (200, 120)
        return options

    monkeypatch.setattr(command, "options_of", small)
    file = tmp_path / "train.json"
    options: list[Any] = ["--model", model, "--device", "cpu", "--rounds", 1, "--json", file]
    assert main(["speed", "train", *map(str, options)]) == 0
    printed = capsys.readouterr()
    assert "not written" not in printed.err
    assert printed.out.startswith("# Where the time")
    (found,) = json.loads(file.read_text())["timings"]
    on, off, memory = (found["turns"][name] for name in ("on", "off", "memory"))
    switched = [NOTHING, "interval 1", "interval 50", CONTROL]
    assert [*off] == switched
    assert [*on] == switched + [PLAIN] * (model == "resnet50")
    for name, (turn,) in (*on.items(), *off.items()):
        assert turn[WHOLE] == pytest.approx(sum(turn[phase] for phase in PHASES))
        assert turn["forward"] > 0.01
        assert turn["backward"] > 0.01
        assert turn["optimizer"] > 0.001
        assert turn["input"] > 0.001
        assert f"| {name} |" in printed.out
    assert all(turn[MEASURING] == turn[WRITING] == 0 for (turn,) in off.values())
    # the timed turn is the eleventh: at interval 50 the probe measures at the first
    for name, (turn,) in on.items():
        assert (turn[MEASURING] > 0.005) == (name in ("interval 1", CONTROL))
        assert (turn[WRITING] > 0) == ("interval" in name)
    assert min(memory.values()) > 2**28
    assert on[CONTROL][0][MEASURING] > 3 * on["interval 1"][0][MEASURING]
