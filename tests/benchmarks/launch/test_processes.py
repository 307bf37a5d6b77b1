"""Two processes with half the batch each are one process with the whole batch, as recorded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from benchmarks.errors import UsageError
from benchmarks.launch import processes
from benchmarks.launch.processes import ParallelRunner, environment_of, port_of
from benchmarks.pipelines.demo_data.scenes import write_scenes
from smd_hooks import load_runs
from smd_hooks.analysis import Run
from tests.conftest import ROOT

CONFIGS = Path(__file__).parent / "configs"
HALF_WAY = 12
BOUND = 100 * torch.finfo(torch.float32).eps
"""Largest difference of a sample, relative to what :func:`scales` says.

The mean of two means is rounded otherwise than one mean is, by about one eps at each step, and
training lets what differs grow: over the few steps taken here by less than a factor of 100.
"""


def train(
    config: str, work_dir: Path, options: list[str], processes: int = 1, flags: tuple[str, ...] = ()
) -> Run:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    several = processes > 1
    done = subprocess.run(
        [
            *(sys.executable, "-m", *(launcher if several else []), "benchmarks", "run"),
            *(str(CONFIGS / f"{config}.py"), "--work-dir", str(work_dir), *flags),
            *(("--launcher", "pytorch") if several else ()),
            *("--cfg-options", *options),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (run,) = load_runs(work_dir)
    assert run.status == "finished"
    return run


def rows(run: Run, first_step: int = 0) -> pd.DataFrame:
    samples = run.samples[run.samples["step"] >= first_step]
    return samples.sort_values(["step", "weight", "unit"], ignore_index=True)


def scales(samples: pd.DataFrame) -> pd.DataFrame:
    """What each measured quantity's differences are compared with: its weight's largest ones.

    An update is the difference of two float32 weights, known to an eps of the weight at best;
    its radial part and an inner product may vanish where what they are parts of do not.
    """
    top = samples.abs().groupby(samples["weight"]).transform("max")
    eps_of_weight = top["weight_norm"] / 100
    return pd.DataFrame(
        {
            "weight_norm": top["weight_norm"],
            "gradient_norm": top["gradient_norm"],
            "gradient_momentum_dot": top["gradient_momentum_dot"] + top["gradient_norm"] ** 2,
            "radial_cosine": 1.0,
            "update_norm": top["update_norm"] + eps_of_weight,
            "radial_update": top["update_norm"] + eps_of_weight,
            "angular_update": top["angular_update"] + 1 / 100,
        }
    )


def difference(found: pd.DataFrame, wanted: pd.DataFrame) -> float:
    """Return the largest difference of any sample, by its scale; settings must be equal."""
    scale = scales(wanted)
    measured = scale.columns
    exact = wanted.columns.difference(measured)
    pd.testing.assert_frame_equal(found[exact], wanted[exact])
    pd.testing.assert_frame_equal(found[measured].isna(), wanted[measured].isna())
    return float(((found[measured] - wanted[measured]).abs() / scale).max(axis=None))


def assert_same_records(found: Run, wanted: Run, bound: float = BOUND) -> None:
    assert len(wanted.samples)
    assert difference(rows(found), rows(wanted)) <= bound
    assert verdicts(found) == verdicts(wanted)
    causes = ["parameter", "cause"]
    pd.testing.assert_frame_equal(found.diagnosis[causes], wanted.diagnosis[causes])
    assert metrics(found).keys() == metrics(wanted).keys() != set()
    for step, values in metrics(wanted).items():
        assert metrics(found)[step] == pytest.approx(values, rel=bound)


def newest_records(run: Run) -> dict[str, Any]:
    return json.loads(max(run.folder.glob("*/smd/run.json")).read_text())


def verdicts(run: Run) -> list[tuple[Any, ...]]:
    """What ``run.json`` says of each weight, but for the statistics that it rests on."""
    asked = ("parameter", "scale_invariant", "per_filter", "norms", "reason", "changes", "rule")
    weights = newest_records(run)["weights"]
    return [tuple(str(weight.get(key)) for key in asked) for weight in weights]


def metrics(run: Run) -> Mapping[int, dict[str, float]]:
    """Every validation's metrics by step, as MMEngine logs them."""
    found: dict[int, dict[str, float]] = {}
    for path in sorted(run.folder.glob("*/vis_data/scalars.json")):
        for line in map(json.loads, path.read_text().splitlines()):
            if "loss" not in line and "lr" not in line:
                times = ("time", "data_time", "step")
                found[line["step"]] = {k: v for k, v in line.items() if k not in times}
    return found


def checkpoint(run: Run, name: str) -> dict[str, Any]:
    return torch.load(run.folder / name, weights_only=False)


# --------------------------------------------------------------------------- classification


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A folder whose validation images two processes cannot share evenly, as options."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 11), ("val", 5)):
        for row, name in enumerate(("ant", "bee", "cat")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(128, size=(12, 12), dtype=np.uint8)
                pixels[4 * row : 4 * row + 4] += 60
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return [f"{split}_dataloader.dataset.data_root={root}" for split in ("train", "val")]


HALF = "train_dataloader.batch_size=4"
SHARDED = [HALF, "model_wrapper_cfg.type=FSDP2"]


@pytest.fixture(scope="module")
def runs(images: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        "one": train("classifier", folder / "one", images),
        "DDP": train("classifier", folder / "DDP", [*images, HALF], 2),
        "FSDP2": train("classifier", folder / "FSDP2", [*images, *SHARDED], 2),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["DDP", "FSDP2"])
def test_two_processes_record_what_one_does(runs: dict[str, Run], kind: str) -> None:
    one, two = runs["one"], runs[kind]
    assert_same_records(two, one)
    assert len(metrics(one)) == 2
    assert two.gpus == 2
    assert any("+" in parameter for parameter, *_ in verdicts(one)), "no joint group to compare"


@pytest.mark.slow
def test_control_half_the_batch_is_another_run(
    runs: dict[str, Run], images: list[str], tmp_path: Path
) -> None:
    half = train("classifier", tmp_path, [*images, HALF])
    assert difference(rows(half), rows(runs["one"])) > 1000 * BOUND


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["DDP", "FSDP2"])
@pytest.mark.parametrize("name", ["iter_12.pth", "iter_24.pth"])
def test_checkpoints_are_those_of_one_process(runs: dict[str, Run], kind: str, name: str) -> None:
    found, wanted = checkpoint(runs[kind], name), checkpoint(runs["one"], name)
    assert found.keys() == wanted.keys()
    assert_close(found["state_dict"], wanted["state_dict"])
    assert_close(found["optimizer"], wanted["optimizer"])


def assert_close(found: Any, wanted: Any) -> None:
    if isinstance(wanted, Mapping):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_close(found[key], wanted[key])
    elif isinstance(wanted, list):
        for a, b in zip(found, wanted, strict=True):
            assert_close(a, b)
    elif torch.is_tensor(wanted):
        assert type(found) is type(wanted)
        assert (found - wanted).abs().max() <= BOUND * wanted.abs().max()
    else:
        assert found == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"), [("FSDP2", "FSDP2"), ("one", "FSDP2"), ("FSDP2", "one")]
)
def test_a_run_goes_on_as_another_kind(
    runs: dict[str, Run], images: list[str], tmp_path: Path, before: str, after: str
) -> None:
    """Of the same kind bit by bit; as another one to rounding."""
    folder = tmp_path / "run"
    shutil.copytree(runs[before].folder, folder)
    (folder / "iter_24.pth").unlink()
    (folder / "last_checkpoint").write_text(str(folder / f"iter_{HALF_WAY}.pth"))
    options = images if after == "one" else [*images, *SHARDED]
    resumed = train("classifier", folder, options, 1 if after == "one" else 2, ("--resume",))
    whole = runs[before]
    assert rows(resumed)["step"].max() == rows(whole)["step"].max()
    assert difference(rows(resumed), rows(whole)) <= (0.0 if before == after else BOUND)
    assert newest_records(resumed)["first_iteration"] == HALF_WAY
    assert verdicts(resumed) == verdicts(whole)
    if before == after:
        assert metrics(resumed) == metrics(whole)
        found, wanted = checkpoint(resumed, "iter_24.pth"), checkpoint(whole, "iter_24.pth")
        for name, weight in wanted["state_dict"].items():
            assert torch.equal(found["state_dict"][name], weight), name


# -------------------------------------------------------------------------------- detection


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Eight scenes with one class, to be trained on, and seven of them to be validated on."""
    root = write_scenes(tmp_path_factory.mktemp("scenes"))
    coco = json.loads((root / "annotations" / "instances_train.json").read_text())
    for split, count in (("train", 8), ("val", 7)):
        images = coco["images"][:count]
        boxes = [{**box, "category_id": 1} for box in coco["annotations"]]
        chosen = [box for box in boxes if box["image_id"] <= count]
        content = {
            "images": images,
            "annotations": chosen,
            "categories": [{"id": 1, "name": "digit"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return [
        *(f"{split}_dataloader.dataset.data_root={root}/" for split in ("train", "val")),
        f"val_evaluator.ann_file={root}/annotations/instances_val.json",
    ]


@pytest.mark.slow
def test_two_processes_train_a_detector_as_one_does(scenes: list[str], tmp_path: Path) -> None:
    """From weights that find something, so that there is a mAP to compare."""
    train("detector_start", tmp_path / "start", scenes)
    options = [*scenes, f"load_from={tmp_path / 'start' / 'iter_40.pth'}"]
    one = train("detector", tmp_path / "one", options)
    two = train("detector", tmp_path / "two", [*options, "train_dataloader.batch_size=2"], 2)
    # the gradients of some layers are what is left of sums that cancel
    assert_same_records(two, one, 10 * BOUND)
    (scores,) = metrics(one).values()
    assert scores["coco/bbox_mAP"] > 0.05
    assert metrics(two) == metrics(one)


# ----------------------------------------------------------------------- without a training

SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NODELIST": "node[3-4]",
    "SLURM_JOB_ID": "71234",
}
MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
PLACE = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}


def test_what_launchers_leave_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_first_host", lambda nodes: {"node[3-4]": "node3"}[nodes])
    met = {"MASTER_ADDR": "node3", "MASTER_PORT": port_of(71234)}
    assert environment_of("slurm", SLURM) == {**PLACE, **met}
    assert environment_of("mpi", MPI) == PLACE
    assert environment_of("pytorch", {"RANK": "5"}) == {}
    own = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4711"}
    assert environment_of("slurm", {**SLURM, **own}) == {**PLACE, **own}


def test_jobs_beside_each_other_meet_at_ports_of_their_own() -> None:
    ports = [int(port_of(job)) for job in range(71_000, 72_000)]
    assert len(set(ports)) == len(ports)
    assert min(ports) > 1023
    assert max(ports) < 32_768  # above it systems hand ports out


@pytest.mark.parametrize("distributed", [True, False])
def test_fsdp2_and_averaged_weights_are_refused(
    distributed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process alone trains the model as it is, and may average it."""
    runner = ParallelRunner.__new__(ParallelRunner)
    runner.cfg = Config({"custom_hooks": [{"type": "EMAHook"}]})
    runner._distributed = distributed
    monkeypatch.setattr(Runner, "wrap_model", lambda self, wrapper, model: model)
    model = torch.nn.Identity()
    with pytest.raises(UsageError, match="EMAHook") if distributed else nullcontext():
        assert runner.wrap_model({"type": "FSDP2"}, model) is model
