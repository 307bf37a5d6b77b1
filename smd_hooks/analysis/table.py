"""The result table: one row per run."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from .runs import Run
from .scalars import METRICS
from .summary import summarize

COLUMNS = (
    *("run", "status", "task", "dataset", "model", "optimizer", "lr", "weight_decay"),
    *("batch_size", "iters", "seed", *METRICS, "si_params", "angle_ratio", "angle_ratio_p05"),
    *("angle_ratio_p95", "in_equilibrium", "trajectory_error", "norm_ratio", "verdict"),
)
_TASKS = {"mmdet": "detection", "mmpretrain": "classification", "mmseg": "segmentation"}


def result_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Build the table, one row per run, with :data:`COLUMNS`.

    Accuracy is in percent and mAP a fraction, as MMEngine logs them; what a run does
    not have is empty. ``angle_ratio`` is an a-priori prediction put to the test,
    ``trajectory_error`` a consistency test (see :mod:`smd_hooks.analysis.agreement`).
    """
    return pd.DataFrame([_row_or_reason(run) for run in runs], columns=list(COLUMNS))


def _row_or_reason(run: Run) -> dict[str, Any]:
    try:
        return _row(run)
    except Exception as error:  # other people's files: no run may cost the others their rows
        warnings.warn(f"{run.folder}: not readable ({error!r})", stacklevel=2)
        return {"run": run.name, "verdict": f"not readable: {error!r}"}


def _row(run: Run) -> dict[str, Any]:
    row = {
        "run": run.name,
        "status": run.status,
        "iters": run.iterations,
        **describe_config(run),
        **run.scalars.metrics,
        **summarize(run.scores, run.weights, run.measured, run.diagnosis),
    }
    if run.status == "failed" and run.state is not None:
        row["verdict"] = f"failed: {run.state.error}"
    return row


def describe_config(run: Run) -> dict[str, Any]:
    """Say in a few words what a run's config trains, on what, and how."""
    cfg = run.config
    wrapper = cfg.get("optim_wrapper") or {}
    optimizer = wrapper.get("optimizer") or {}
    loader = cfg.get("train_dataloader") or {}
    accumulation = int(wrapper.get("accumulative_counts") or 1)
    per_process = loader.get("batch_size")
    lr, scaling = optimizer.get("lr"), cfg.get("auto_scale_lr") or {}
    if lr and per_process and scaling.get("enable"):
        lr *= per_process * run.gpus / scaling["base_batch_size"]
    recorded = run.launches[-1].run.get("seed") if run.launches else None
    seed = (cfg.get("randomness") or {}).get("seed")
    return {
        "task": _task(run),
        "dataset": _dataset(loader.get("dataset") or {}),
        "model": _model(cfg.get("model") or {}),
        "optimizer": _optimizer(optimizer, cfg.get("custom_hooks") or []),
        "lr": lr,
        "weight_decay": optimizer.get("weight_decay"),
        "batch_size": per_process * run.gpus * accumulation if per_process else None,
        "seed": seed if seed is not None else recorded,
    }


def _task(run: Run) -> str | None:
    if any(name.startswith("accuracy/") for name in run.scalars.metrics):
        return "classification"
    if any(name.startswith("coco/") for name in run.scalars.metrics):
        return "detection"
    if "Classifier" in str((run.config.get("model") or {}).get("type")):
        return "classification"
    return _TASKS.get(str(run.config.get("default_scope")))


def _dataset(dataset: dict[str, Any]) -> str | None:
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    if isinstance(dataset.get("datasets"), list) and dataset["datasets"]:
        return " + ".join(str(_dataset(d)) for d in dataset["datasets"])
    root = dataset.get("data_root")
    return PurePosixPath(str(root)).name if root else dataset.get("type")


def _model(model: dict[str, Any]) -> str | None:
    if model.get("arch"):
        return str(model["arch"])
    backbone = model.get("backbone") or {}
    if not isinstance(backbone, dict) or not backbone.get("type"):
        return model.get("type")
    depth = backbone.get("depth", "")
    return f"{model.get('type')} {backbone['type']}{f'-{depth}' if depth else ''}"


def _optimizer(optimizer: dict[str, Any], hooks: Sequence[Any]) -> str | None:
    if not optimizer.get("type"):
        return None
    extra = {k: optimizer[k] for k in ("momentum", "nesterov") if optimizer.get(k)}
    text = str(optimizer["type"]).rpartition(".")[2]
    if extra:
        text += f"({', '.join(f'{k}={v}' for k, v in extra.items())})"
    types = [str(hook.get("type")) for hook in hooks if isinstance(hook, dict)]
    for hook, word in (("EquilibriumRescaleHook", "rescaled"), ("RotationalUpdateHook", "turned")):
        if any(t.endswith(hook) for t in types):
            text += f", {word}"
    return text


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as text: four significant digits, empty where nothing is known."""

    def show(value: Any) -> str:
        if value is None or (not isinstance(value, str) and pd.isna(value)):
            return ""
        if isinstance(value, float):
            return f"{value:.0f}" if value.is_integer() and abs(value) >= 1 else f"{value:.4g}"
        return str(value)

    return table.astype(object).map(show)


def render_terminal(table: pd.DataFrame, width: int | None = None) -> str:
    """Lay the table out for a terminal, wrapped into blocks that repeat the run's name."""
    text = format_table(table)
    shown = [c == "run" or bool((text[c] != "").any()) for c in text.columns]
    text = text.loc[:, shown]
    width = width or shutil.get_terminal_size((120, 24)).columns
    with pd.option_context("display.max_colwidth", None):
        return text.set_index("run").rename_axis(None).to_string(line_width=width)


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * table.shape[1], *format_table(table).to_numpy()]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


_TEXT: dict[str, Callable[[pd.DataFrame], str]] = {
    ".csv": lambda table: table.to_csv(index=False),
    ".md": _markdown,
    ".tex": lambda table: format_table(table).to_latex(index=False, escape=True),
    ".html": lambda table: format_table(table).to_html(index=False, border=0),
}


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write the table in the format that the suffix names.

    Raises:
        ValueError: The suffix is not csv, md, tex, html or parquet.
        OSError: The file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif suffix in _TEXT:
        path.write_text(_TEXT[suffix](table), encoding="utf-8")
    else:
        known = ", ".join([*_TEXT, ".parquet"])
        raise ValueError(f"{path}: '{path.suffix}' is no table format; use one of {known}")
