"""Work dirs that are broken in every way that comes to mind, by a seeded generator.

``mutilate(root, 200)`` makes them; each says which file a reader must name. Some would leave
a file ``root/executed`` behind if anything in them were executed or unpickled.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smd_hooks.records import RunState, write_state
from tests.analysis.reading.broken_contents import HOSTILE, ODD_TABLES, TABLES, contents
from tests.analysis.work_dirs import CONFIG, launch, perfect_samples, weight

TIMESTAMP = "20260101_000000"
FILES = {
    "config": "vis_data/config.py",
    "scalars": "vis_data/scalars.json",
    "run": "smd/run.json",
    "state": "smd/state.json",
    "samples": "smd/samples-0000000000.parquet",
}


@dataclass(frozen=True)
class Mutilated:
    """A run folder that was tampered with.

    Attributes:
        kind: In which way.
        folder: The work dir.
        broken: The file that must be named; None where all files are fine: the names are
            hostile and the run reads like a healthy one, or its numbers are odd.
    """

    kind: str
    folder: Path
    broken: Path | None


def healthy(folder: Path, parameter: str = "a", config: str = CONFIG) -> Path:
    """Make a small run that was measured and has finished; return its launch."""
    lines: list[dict[str, Any]] = [{"lr": 0.1, "loss": 2.0, "step": 50}]
    lines += [{"lr": 0.1, "loss": 1.0, "step": 100}, {"accuracy/top1": 97.5, "step": 100}]
    samples = perfect_samples(np.arange(60), np.full(60, 0.1))
    run = {"first_step": 0, "world_size": 1, "seed": 7, "weights": [weight(parameter)]}
    made = launch(folder, TIMESTAMP, lines, samples, run, config)
    write_state(made, RunState("finished", 100, 100))
    return made


def mutilate(root: Path, number: int, seed: int = 0) -> list[Mutilated]:
    """Make so many mutilated work dirs below a folder: each kind once, then any."""
    rng = np.random.default_rng(seed)
    trap = Trap(root / "executed")
    kinds = dict(_kinds(trap))
    names = list(kinds)
    chosen = names + [names[i] for i in rng.integers(len(names), size=number)]
    return [kinds[kind](root, place, rng) for place, kind in enumerate(chosen[:number])]


Kind = Callable[[Path, int, np.random.Generator], Mutilated]


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))

    @property
    def code(self) -> str:
        return f"open({str(self.marker)!r}, 'w')"


def _kinds(trap: Trap) -> Iterator[tuple[str, Kind]]:
    for name, path in FILES.items():
        for way, tamper in _any_file(trap).items():
            yield f"{name} {way}", _of_file(f"{name} {way}", path, tamper)
    for name, texts in contents(trap.code).items():
        for n, content in enumerate(texts):
            kind = f"{name} content {n}"
            tamper = _write_foreign if name == "config" else _write
            yield kind, _of_file(kind, FILES[name], tamper(content))
    for way, change in TABLES.items():
        yield f"samples {way}", _of_file(f"samples {way}", FILES["samples"], _rewrite(change))
    for way, change in ODD_TABLES.items():
        yield f"odd samples {way}", _odd(_rewrite(change))
    for folder in ("smd", "vis_data"):
        yield f"{folder} a file", _of_file(f"{folder} a file", folder, _file_for_folder)
    yield "loop beside", _loop
    yield "run.json gone", _run_gone
    yield "log a folder", _of_file("log a folder", f"{TIMESTAMP}.log", _log_a_folder)
    for n, name in enumerate(HOSTILE):
        yield f"hostile name {n}", _named(name)
        yield f"hostile content {n}", _saying(name)
    yield "deep", _deep
    yield "checkpoint", _checkpoint(trap)


def _of_file(kind: str, path: str, tamper: Callable[[Path, np.random.Generator], object]) -> Kind:
    def make(root: Path, place: int, rng: np.random.Generator) -> Mutilated:
        folder = root / f"{place:03d}-{kind.replace(' ', '-')}"
        made = healthy(folder)
        tamper(made / path, rng)
        return Mutilated(kind, folder, made / path)

    return make


# ------------------------------------------------------------------ what any file may be


def _any_file(trap: Trap) -> dict[str, Callable[[Path, np.random.Generator], object]]:
    return {
        "truncated": _truncate,
        "empty": lambda path, _: path.write_bytes(b""),
        "binary": lambda path, rng: path.write_bytes(b"\x00\xff\n" + rng.bytes(300)),
        "a folder": _in_place(lambda path: path.mkdir()),
        "a pipe": _in_place(os.mkfifo),
        "a device": _in_place(lambda path: path.symlink_to("/dev/zero")),
        "a link to itself": _in_place(lambda path: path.symlink_to(path)),
        "a link to nowhere": _in_place(lambda path: path.symlink_to("nowhere")),
        "a pickle": lambda path, _: path.write_bytes(pickle.dumps(trap)),
        "huge": _huge,
    }


def _truncate(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    end = int(rng.integers(40, 60))  # within the first object, call or line of each
    path.write_bytes(content[:end])


def _in_place(make: Callable[[Path], object]) -> Callable[[Path, np.random.Generator], object]:
    def tamper(path: Path, _: np.random.Generator) -> None:
        path.unlink()
        make(path)

    return tamper


def _huge(path: Path, _: np.random.Generator) -> None:
    with open(path, "r+b") as file:
        file.truncate(3 * 2**30)  # sparse: takes no room


def _file_for_folder(path: Path, _: np.random.Generator) -> None:
    path.rename(path.with_name("elsewhere"))
    path.write_text("no folder")


def _log_a_folder(path: Path, _: np.random.Generator) -> None:
    shutil.rmtree(path.with_name("smd"))  # the log is read where there are no records
    path.mkdir()


# ------------------------------------------------------- what files of one kind may hold


def _write(content: str) -> Callable[[Path, np.random.Generator], object]:
    return lambda path, _: path.write_text(content)


def _write_foreign(content: str) -> Callable[[Path, np.random.Generator], object]:
    def tamper(path: Path, _: np.random.Generator) -> None:
        path.write_text(content)
        (path.parent.parent / FILES["state"]).unlink()  # so that the config must tell the status

    return tamper


def _rewrite(change: Callable[[pa.Table], pa.Table]) -> Callable[..., object]:
    def tamper(path: Path, _: np.random.Generator) -> None:
        pq.write_table(change(pq.read_table(path)), path)

    return tamper


# ------------------------------------------------------------- folders, names and words


def _odd(tamper: Callable[..., object]) -> Kind:
    def make(root: Path, place: int, rng: np.random.Generator) -> Mutilated:
        folder = root / f"{place:03d}-odd"
        tamper(healthy(folder) / FILES["samples"], rng)
        return Mutilated("odd samples", folder, None)

    return make


def _run_gone(root: Path, place: int, _: np.random.Generator) -> Mutilated:
    folder = root / f"{place:03d}-gone"
    made = healthy(folder)
    (made / FILES["run"]).unlink()
    return Mutilated("run.json gone", folder, made / "smd")


def _loop(root: Path, place: int, _: np.random.Generator) -> Mutilated:
    folder = root / f"{place:03d}-loop"
    healthy(folder)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "up").symlink_to(folder)  # which is no harm
    return Mutilated("loop beside", folder, folder / "loop")


def _named(name: str) -> Kind:
    def make(root: Path, place: int, _: np.random.Generator) -> Mutilated:
        folder = root / f"{place:03d}" / name
        healthy(folder)
        return Mutilated("hostile name", folder, None)

    return make


def _saying(text: str) -> Kind:
    def make(root: Path, place: int, _: np.random.Generator) -> Mutilated:
        folder = root / f"{place:03d}-saying"
        made = healthy(folder, text, CONFIG.replace("'resnet50'", repr(text)))
        with open(made / FILES["scalars"], "a") as file:
            file.write(json.dumps({text: 0.5, "step": 100}) + "\n")
        return Mutilated("hostile content", folder, None)

    return make


def _deep(root: Path, place: int, _: np.random.Generator) -> Mutilated:
    folder = root / f"{place:03d}-deep"
    healthy(folder)
    inner = folder.joinpath(*["d"] * 300)
    path = folder
    for part in inner.relative_to(folder).parts:
        path = path / part
        path.mkdir()
    return Mutilated("deep", folder, None)


def _checkpoint(trap: Trap) -> Kind:
    def make(root: Path, place: int, _: np.random.Generator) -> Mutilated:
        folder = root / f"{place:03d}-checkpoint"
        healthy(folder)
        for name in ("epoch_1.pth", "last_checkpoint", "best.pkl", "hook.py"):
            (folder / name).write_bytes(pickle.dumps(trap))
        return Mutilated("checkpoint", folder, None)

    return make
