"""Where the time of a whole training step goes, with the hook and without.

MMEngine's Runner trains ResNet-50 and Mask R-CNN by the project's own configs on generated
pictures of ImageNet's and COCO's sizes: with SMDHook at each interval, with nothing that measures
(what equal steps differ by is noise), with eight probes, and ResNet-50 also in torchvision's plain
loop. They take turns, step by step; each has what measures switched on and off from turn to turn.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pipelines import mmcv_ops
from benchmarks.provenance import provenance
from benchmarks.speed.timing import prepare, spread, verdict, write_json
from benchmarks.speed.train.lanes import MEMORY, Lane, LaneEnded, Turns, take_turns
from benchmarks.speed.train.phases import PHASES, WHOLE
from benchmarks.speed.train.pictures import write_photos, write_scenes

CONFIGS = {
    "resnet50": Path("configs/imagenet/resnet50_goyal_8xb32-90e.py"),
    "mask-rcnn": Path("configs/coco/mask-rcnn_r50_fpn_syncbn-scratch_4x_coco.py"),
}
BATCH = {"cpu": {"resnet50": 16, "mask-rcnn": 1}, "cuda": {"resnet50": 256, "mask-rcnn": 2}}
STEPS = {"cpu": 1, "cuda": 50}
"""Per turn; on a GPU so many that what loaders have made in others' turns does not count."""
WORKERS = {"cpu": 0, "cuda": 14}
PICTURES = {"resnet50": 512, "mask-rcnn": 64}
ROUNDS, WARM_UP = {"resnet50": 21, "mask-rcnn": 9}, 10
"""Turns, fewer of steps that take three times as long; before the timed ones the hook finds in its
first 8 steps what is scale-invariant."""
TOGETHER = {"resnet50": 5, "mask-rcnn": 2}
"""Trainings that take turns, as many as 24 GiB hold."""
NOTHING, PLAIN = "nothing", "plain torchvision loop"
CONTROL, PROBES = "control: eight probes", 8
INTERVALS = {"cpu": (1, 50), "cuda": (1, 10, 50)}
LIMIT = {"cpu": 1.02, "cuda": 1 / 0.99}
"""Of a step's time with the hook at interval 1, over the same without."""


@dataclass(frozen=True)
class Timing:
    """What one model's lanes took.

    Attributes:
        model: Its name.
        batch: Pictures per step.
        turns: What its lanes told.
    """

    model: str
    batch: int
    turns: Turns

    def cost(self, lane: str) -> list[float]:
        """How many times as long a step takes with what measures on as with it off, in pairs."""
        pairs = zip(self.turns.on[lane], self.turns.off[lane], strict=True)
        return [on[WHOLE] / off[WHOLE] for on, off in pairs]


def add_parser(commands: Any) -> None:
    """Add the ``train`` timing."""
    parser = commands.add_parser(
        "train", help="where the time of a training step goes", description=__doc__
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--model", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default=device)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument(
        "--rounds",
        type=int,
        help="timed turns of each training (default: "
        + ", ".join(f"{count} of {model}" for model, count in ROUNDS.items())
        + ")",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time, print Markdown; 1 where a model's trainings did not come to their end, else 0."""
    started = time.monotonic()
    device = prepare(args)
    timings, missing = [], []
    for model in args.model:
        try:
            timings.append(time_model(model, device, args.rounds or ROUNDS[model]))
        except LaneEnded as ended:
            missing.append(f"- {model}: not measured: {ended}")
    threads = torch.get_num_threads()
    command = (
        f"python -m benchmarks speed train --model {' '.join(args.model)} "
        f"--device {device.type} --threads {threads}"
        + (f" --rounds {args.rounds}" if args.rounds else "")
    )
    about = [*provenance(command, time.monotonic() - started), f"- threads: {threads}"]
    print("\n".join([*report(about, timings, device.type), *missing]))
    if args.json:
        figures = {"about": about, "timings": [asdict(timing) for timing in timings]}
        write_json(args.json, figures)
    return 1 if missing else 0


def time_model(model: str, device: torch.device, rounds: int) -> Timing:
    """Time all trainings of one model."""
    with tempfile.TemporaryDirectory(prefix="smd-hooks-pictures-") as folder:
        data_root = Path(folder)
        if model == "resnet50":
            write_photos(data_root, PICTURES[model])
        else:
            mmcv_ops.install()
            with redirect_stdout(sys.stderr):  # mmdet has something to say
                from mmdet.datasets import CocoDataset

            write_scenes(data_root, PICTURES[model], CocoDataset.METAINFO["classes"])
        lanes, together = lanes_of(model, device.type, data_root), TOGETHER[model]
        how = (device, torch.get_num_threads(), rounds, WARM_UP, STEPS[device.type])
        turns = Turns({}, {}, {})
        for first in range(0, len(lanes), together):
            turns |= take_turns(lanes[first : first + together], *how)
    return Timing(model, BATCH[device.type][model], turns)


def lanes_of(model: str, device: str, data_root: Path) -> list[Lane]:
    """Return a model's trainings."""
    options = options_of(model, device, data_root)
    config = CONFIGS[model].resolve()
    lanes = [Lane(NOTHING, config, options | {"custom_hooks": []})]
    for interval in INTERVALS[device]:
        hook = [dict(type="SMDHook", interval=interval)]
        lanes.append(Lane(_at(interval), config, options | {"custom_hooks": hook}))
    lanes.append(Lane(CONTROL, config, options | {"custom_hooks": []}, probes=PROBES))
    if model == "resnet50":
        lanes.append(
            Lane(PLAIN, None, {}, data_root, BATCH[device][model], workers=WORKERS[device])
        )
    return lanes


def options_of(model: str, device: str, data_root: Path) -> dict[str, Any]:
    """Return what is set in a model's config: the pictures, the batch; on a GPU, bfloat16."""
    options: dict[str, Any] = {
        "train_dataloader.batch_size": BATCH[device][model],
        "train_dataloader.num_workers": WORKERS[device],
        "train_dataloader.persistent_workers": WORKERS[device] > 0,
        "train_dataloader.dataset.data_root": f"{data_root}/",
        "default_hooks.checkpoint.interval": 10**9,
    }
    if model == "resnet50":
        options["train_dataloader.dataset.classes"] = None
        options["train_cfg.max_epochs"] = 10**6
    if device == "cuda":
        options["optim_wrapper.type"] = "BFloat16OptimWrapper"
        options["model.channels_last"] = True
    return options


def report(about: Sequence[str], timings: Sequence[Timing], device: str) -> list[str]:
    """Put the figures into lines of Markdown."""
    lines = [
        "# Where the time of a training step goes",
        "",
        *about,
        "",
        "Milliseconds per step: median of the turns; of whole steps and ratios also the 10th to",
        "90th percentile. Within each training what measures is switched on and off from turn to",
        "turn; ratios are those of the two turns that stand side by side.",
    ]
    for timing in timings:
        lines += ["", *_table(timing), "", *(f"- {line}" for line in verdicts(timing, device))]
    lines += [
        "",
        "- all trainings keep the memory that they free: "
        + ", ".join(f"{name}={value}" for name, value in MEMORY.items()),
        "- measuring: the probe before and after the optimizer's step; writing: what the hook",
        "  does after it, records included; rest: what is none of the phases, such as logs",
        "- GiB: the most that was held, "
        + ("by tensors" if device == "cuda" else "by the process, libraries included"),
        "- pictures: generated, of ImageNet's and COCO's usual sizes",
    ]
    if device != "cuda":
        lines.append("- on a GPU: not measured")
    return lines


def _table(timing: Timing) -> list[str]:
    turns = timing.turns
    lines = [
        f"## {timing.model}, batch {timing.batch}, {len(turns.on[NOTHING])} turns of each",
        "",
        f"| what measures | | pictures/s | whole step | on / off | {' | '.join(PHASES)} | GiB |",
        "|" + " --- |" * (6 + len(PHASES)),
    ]
    for lane in turns.on:
        ratio = spread(timing.cost(lane)) if lane in turns.off else ""
        for state, all_turns, told in (("on", turns.on, ratio), ("off", turns.off, "")):
            if lane not in all_turns:
                continue
            whole = [turn[WHOLE] for turn in all_turns[lane]]
            shares = (
                f"{np.median([turn[phase] for turn in all_turns[lane]]) * 1e3:.3g}"
                for phase in PHASES
            )
            lines.append(
                f"| {lane} | {state if lane in turns.off else ''} "
                f"| {timing.batch / float(np.median(whole)):.3g} | {spread(whole, 1e3)} | {told} "
                f"| {' | '.join(shares)} | {turns.memory[lane] / 2**30:.2f} |"
            )
    return lines


def verdicts(timing: Timing, device: str) -> list[str]:
    """Hold the hook's cost to its limits, and to the noise between equal steps.

    Which of two equal steps is the faster is chance: their noise has both directions. Steps that
    are faster than it allows differ in more than the hook, and turns that do not tell the control
    from nothing tell nothing.
    """
    limit = LIMIT[device]
    equal = np.array(timing.cost(NOTHING))
    low, high = np.quantile([*equal, *(1 / equal)], (0.1, 0.9))
    measured = timing.turns.on[_at(1)]
    share = [(turn["measuring"] + turn["writing"]) / turn[WHOLE] for turn in measured]
    # turns of one step: what is measured seldom is in none of them, or in too few for a median
    unseen = float(np.median(share)) / 50 if STEPS[device] == 1 else 0.0
    always, seldom, dear = (
        float(np.median(timing.cost(lane))) for lane in (_at(1), _at(50), CONTROL)
    )
    seldom += unseen
    tells = dear > max(limit, high)
    lines = [
        f"equal steps: {low:.4f}–{high:.4f} times as long",
        f"control, measured {PROBES} times a step: {dear:.4f} times as long: "
        + ("fails, as it must" if tells else "DOES NOT FAIL: whole steps tell nothing here"),
        f"interval 1, measuring and writing: {spread(share, 100)} % of the step, "
        f"≤ {100 * (limit - 1):.3g} %: {verdict(share, limit - 1)}",
        f"interval 1, whole steps: {always:.4f} times as long, ≤ {limit:.4g}: "
        + _judge(always, low, limit, tells),
        f"interval 50, whole steps: {seldom:.4f} times as long, within the noise: "
        + _judge(seldom, low, high, tells)
        + (f" ({unseen:.1e} of it a 50th of interval 1's measuring and writing)" if unseen else ""),
    ]
    if PLAIN in timing.turns.on:
        pairs = zip(timing.turns.on[PLAIN], measured, strict=True)
        speed = [plain[WHOLE] / ours[WHOLE] for plain, ours in pairs]
        lines.append(
            f"pictures/s with the hook at interval 1, over the plain loop's: {spread(speed)}"
            + (f" ≥ 1: {_judge(1 / float(np.median(speed)), 0, 1)}" if device == "cuda" else "")
        )
    return lines


def _at(interval: int) -> str:
    return f"interval {interval}"


def _judge(ratio: float, low: float, limit: float, tells: bool = True) -> str:
    if not tells:
        return "NOT TOLD: the control does not fail"
    if ratio < low:
        return "NOT TOLD: faster than equal steps differ"
    return "holds" if ratio <= limit else "FAILS"
