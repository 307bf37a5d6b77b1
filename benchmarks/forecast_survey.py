"""``python -m benchmarks forecast-survey``: forecasts for every config that mmdet ships."""

from __future__ import annotations

import argparse
import collections
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.errors import UsageError
from benchmarks.pipelines import mmcv_ops
from benchmarks.provenance import provenance
from smd_hooks.analysis.forecast.plan import Layers
from smd_hooks.planning import forecast

ITERATIONS = 1000
"""Length of an epoch that is assumed; no data set is there, and none is asked."""


@dataclass(frozen=True)
class Row:
    """What came of one config.

    Attributes:
        config: Its path below the folder of configs.
        optimizer: The optimizer's name; empty where it could not be read.
        verdict: ``"some"``, ``"none"`` or ``"unknown"``: whether any weight is scale-invariant.
        result: In a few words: the scale-invariant weights of all, or why none is known.
        no_stages: In words, why theory says nothing of this optimizer or setting.
        unreadable: In a line, why it has no forecast; empty where it has one.
        seconds: What it took.
    """

    config: str
    optimizer: str
    verdict: str
    result: str
    no_stages: str
    unreadable: str
    seconds: float


def shipped_configs() -> Path | None:
    """Return the folder of configs in the installed mmdet; None where there is none."""
    spec = find_spec("mmdet")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / ".mim" / "configs"
    return folder if folder.is_dir() else None


def config_files(folder: Path) -> list[Path]:
    """Every config below a folder but those that are only there to be inherited."""
    files = sorted(folder.rglob("*.py"))
    return [f for f in files if "_base_" not in f.relative_to(folder).parts]


def survey(files: Iterable[Path], folder: Path) -> Iterator[Row]:
    """Forecast each config, and yield what came of it."""
    for file in files:
        began = time.perf_counter()
        name = file.relative_to(folder).as_posix()
        try:
            found = forecast(file, iters_per_epoch=ITERATIONS)
        except ValueError as error:
            # the packages lie elsewhere on another machine
            line = str(error).replace(f"{folder}/", "").replace(f"{folder.parents[2]}/", "")
            yield Row(name, "", "", "", "", line, time.perf_counter() - began)
            continue
        missing = [group.no_prediction for group in found.groups if not group.stages]
        yield Row(
            config=name,
            optimizer=found.optimizer.partition("(")[0],
            verdict=found.layers.verdict,
            result=_in_short(found.layers).replace(f"{folder.parents[2]}/", ""),
            no_stages=missing[0] if missing else "",
            unreadable="",
            seconds=time.perf_counter() - began,
        )


def _in_short(layers: Layers) -> str:
    if layers.verdict == "some":
        return f"{len(layers.invariant)}/{layers.matrices}"
    if layers.note:
        return layers.note.partition(": layers are judged")[0]
    if layers.unknown:
        return "a part of the model does not run without data, or holds an unknown operation"
    found = {_SHORT.get(reason.partition(" (")[0], "other operations") for reason in layers.others}
    return ", ".join(sorted(found))


_SHORT = {
    "frozen": "frozen",
    "its BatchNorm is in eval mode": "norms in eval mode",
    "no norm follows: another weight, a sum or the loss comes first": "no norm",
    "scale-invariant only jointly with its bias": "only jointly with a bias",
    **{f"no norm in its {part} acts in training": "norms in eval mode"
       for part in ("backbone", "neck", "rpn_head", "roi_head", "bbox_head")},
}  # fmt: skip


def add_parser(commands: Any) -> None:
    """Add the ``forecast-survey`` command and its options."""
    parser = commands.add_parser(
        "forecast-survey", help="forecast every config that mmdet ships", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=Path("results/forecast"), metavar="DIR")
    parser.add_argument("--match", default="", help="only configs whose path has this in it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Survey and write README.md and configs.csv; 0."""
    mmcv_ops.install()
    folder = shipped_configs()
    if folder is None:
        raise UsageError("no mmdet with its configs is installed (pip install onedl-mmdetection)")
    files = [f for f in config_files(folder) if args.match in f.relative_to(folder).as_posix()]
    began = time.perf_counter()
    rows = []
    for row in survey(files, folder):
        rows.append(row)
        print(
            f"{row.seconds:5.2f} s  {row.config}: {row.unreadable or row.result[:120]}", flush=True
        )
    args.out.mkdir(parents=True, exist_ok=True)
    told = provenance("python -m benchmarks forecast-survey", time.perf_counter() - began)
    (args.out / "README.md").write_text(report(rows, told), encoding="utf-8")
    write_csv(rows, args.out / "configs.csv")
    print(f"wrote {args.out}: {len(rows)} configs")
    return 0


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write one line per config."""
    import pandas as pd  # only here: the survey itself needs none of it

    pd.DataFrame([vars(row) for row in rows]).round({"seconds": 2}).to_csv(path, index=False)


def report(rows: Sequence[Row], told: Sequence[str]) -> str:
    """Sum the survey up in Markdown."""
    read = [row for row in rows if not row.unreadable]
    times = sorted(row.seconds for row in read) or [0.0]
    verdicts = collections.Counter(row.verdict for row in read)
    optimizers = collections.Counter(row.optimizer for row in read)
    kinds = ", ".join(f"{name} {count}" for name, count in optimizers.most_common())
    lines = [
        "# Forecasts for the configs that mmdet ships",
        "",
        *told,
        f"- epochs taken to have {ITERATIONS} iterations; no data, no training",
        "",
        f"{len(read)} of {len(rows)} configs have a forecast ({kinds}). A config takes "
        f"{times[len(times) // 2]:.2f} s in the median, 99 % at most "
        f"{times[int(0.99 * (len(times) - 1))]:.1f} s, beside whatever else the machine did. "
        "[configs.csv](configs.csv) has a line for each.",
        "",
        "| scale-invariant weights | configs |",
        "|---|---|",
        f"| some | {verdicts['some']} |",
        f"| none | {verdicts['none']} |",
        f"| nobody can tell without training | {verdicts['unknown']} |",
        "",
        *_counted("none", "Nothing is scale-invariant; each weight matrix is one of:", read),
        *_counted("unknown", "Nobody can tell, because:", read),
        "No forecast:",
        "",
        "| config | why |",
        "|---|---|",
        *(f"| {row.config} | {_cell(row.unreadable)} |" for row in rows if row.unreadable),
        "",
    ]
    return "\n".join(lines)


def _counted(verdict: str, title: str, rows: Sequence[Row]) -> list[str]:
    """A table of why, the commonest first."""
    reasons = collections.Counter(row.result for row in rows if row.verdict == verdict)
    body = [f"| {count} | {_cell(reason)} |" for reason, count in reasons.most_common()]
    return [title, "", "| configs | why |", "|---|---|", *body, ""]


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
