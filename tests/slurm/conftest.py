"""Tests on a real Slurm: those that ``make test-slurm`` sets up, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.engines.slurm_array import in_queue
from benchmarks.engines.slurm_queue import Job, ask, jobs_in_queue
from benchmarks.engines.training import Training
from benchmarks.pipelines.demo_data.digits import write_digits
from tests.conftest import ROOT

LENGTH = 600
CONFIG = """
_base_ = ["{root}/configs/_base_/classification_runtime.py"]
model = dict(
    type="TorchvisionClassifier",
    arch="cifar_resnet",
    num_classes=10,
    arch_options=dict(widths=(4, 8, 8), blocks_per_stage=1, in_channels=1),
    data_preprocessor=dict(type="ImagePreprocessor", mean=[33.4], std=[71.4]),
)


def loader(split, sampler, batch_size):
    return dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=sampler,
        collate_fn=dict(type="default_collate"),
        dataset=dict(
            type="ImageFolderDataset",
            data_root={data!r},
            split=split,
            transforms=[dict(type="Grayscale")],
            label_noise=0.2 if split == "train" else 0.0,
            in_memory=True,
        ),
    )


train_dataloader = loader("train", dict(type="InfiniteSampler", shuffle=True), 16)
val_dataloader = loader("val", dict(type="DefaultSampler", shuffle=False), 250)
del loader
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=0.001))
param_scheduler = dict(type="MultiStepLR", by_epoch=False, milestones=[400], gamma=0.1)
train_cfg = dict(by_epoch=False, max_iters={length}, val_interval=200)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=20, max_keep_ckpts=1),
)
custom_hooks = [dict(type="SMDHook", interval=1)]
"""
DRIVER = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run in background
from benchmarks.engines import slurm
slurm.LOOK_EVERY = 0.5
from benchmarks.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="session", autouse=True)
def _slurm() -> None:
    """Skip everything here where this is not the Slurm made for it: users have jobs on others."""
    if not os.environ.get("SMD_TEST_SLURM"):
        pytest.skip("needs a Slurm of its own: run them by make test-slurm")


@pytest.fixture(autouse=True)
def _empty_queue() -> Iterator[None]:
    yield
    for force in (["--signal=KILL", "--full"], []):
        subprocess.run(["scancel", "--user=root", "--quiet", *force], check=False)
    wait_until(lambda: all(job.has_ended for job in jobs_in_queue()))


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small digit classifier that trains for some seconds, with a checkpoint all the while."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    path = folder / "digits.py"
    data = str(folder / "mnist_5k")
    path.write_text(CONFIG.format(root=ROOT, data=data, length=LENGTH))
    return path


def wait_until(true: Callable[[], object], seconds: float = 600.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)


def alive(folder: Path, names: Sequence[str]) -> dict[str, Job]:
    """The jobs of a sweep's runs, by the run's name, that have not ended."""
    jobs = {job.place: job for job in jobs_in_queue()}
    trainings = [Training(name, "", folder / name) for name in names]
    return {name: jobs[place] for name, place in in_queue(trainings, [*jobs.values()]).items()}


def hurry(job: Job) -> None:
    """Slurm has what was requeued wait for two minutes."""
    wait_until(lambda: "Reason=BeginTime" in ask("scontrol", "show", "job", str(job.place)))
    ask("scontrol", "update", f"jobid={job.place}", "starttime=now")


def notify(job: Job) -> None:
    """Signal a job's script as Slurm does before its time limit."""
    # of an element whose array was requeued in part, Slurm 22.05's scancel ends with 229, and yet
    # has sent it
    subprocess.run(["scancel", "--batch", "--signal=USR1", str(job.place)], check=False)


@dataclass
class Command:
    """``python -m benchmarks …`` as a process of its own, which looks at the queue often."""

    process: subprocess.Popen[str]
    output: str = ""

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self, seconds: float = 900.0) -> int:
        self.output = self.process.communicate(timeout=seconds)[0]
        return self.process.returncode


@pytest.fixture
def benchmarks() -> Iterator[Callable[..., Command]]:
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> Command:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *words],
            cwd=ROOT,
            # as jobs have it: with other threads sums are rounded in another order
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return Command(process)

    yield start
    for process in started:
        process.kill()
        process.wait()
