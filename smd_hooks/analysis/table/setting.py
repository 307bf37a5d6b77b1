"""What a run trains, on what, and how, in the words of the result table."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from ..reading.config_values import ConfigValues
from ..reading.run import Run

_TASKS = {"mmdet": "detection", "mmpretrain": "classification", "mmseg": "segmentation"}
_TURNING = (("EquilibriumRescaleHook", "rescaled"), ("RotationalUpdateHook", "turned"))


def describe_config(run: Run) -> dict[str, Any]:
    """Say in a few words what a run's config trains, on what, and how.

    Returns:
        ``task, dataset, model, optimizer, lr, weight_decay, batch_size, seed``; None where
        the config does not say, or says something of a strange type: a warning names that.
    """
    config = ConfigValues(run.config, run.config_file)
    wrapper, loader = config.section("optim_wrapper"), config.section("train_dataloader")
    optimizer = wrapper.section("optimizer")
    per_process, lr = loader.count("batch_size"), optimizer.number("lr")
    scaling = config.section("auto_scale_lr")
    if lr and per_process and scaling.flag("enable"):
        base = scaling.count("base_batch_size")
        lr = lr * per_process * run.gpus / base if base else None
    seed = config.section("randomness").count("seed")
    recorded = run.launches[-1].run.get("seed") if run.launches else None
    accumulation = wrapper.count("accumulative_counts") or 1
    return {
        "task": _task(run, config),
        "dataset": _dataset(loader.section("dataset")),
        "model": _model(config.section("model")),
        "optimizer": _optimizer(optimizer, config.sections("custom_hooks")),
        "lr": lr,
        "weight_decay": optimizer.number("weight_decay"),
        "batch_size": per_process * run.gpus * accumulation if per_process else None,
        "seed": seed if seed is not None else recorded,
    }


def _task(run: Run, config: ConfigValues) -> str | None:
    logged = run.scalars.metrics
    if any(name.startswith("accuracy/") for name in logged):
        return "classification"
    if any(name.startswith("coco/") for name in logged):
        return "detection"
    if "Classifier" in (config.section("model").text("type") or ""):
        return "classification"
    return _TASKS.get(config.text("default_scope") or "")


def _dataset(dataset: ConfigValues) -> str | None:
    while "dataset" in dataset:  # what repeats or wraps another one
        dataset = dataset.section("dataset")
    several = dataset.sections("datasets")
    if several:
        return " + ".join(str(_dataset(one)) for one in several)
    root = dataset.text("data_root")
    return PurePosixPath(root).name if root else _short(dataset.text("type"))


def _model(model: ConfigValues) -> str | None:
    if "arch" in model:
        return model.text("arch")
    kind, backbone = _short(model.text("type")), model.section("backbone")
    inner = _short(backbone.text("type"))
    if not inner:
        return kind
    depth = backbone.count("depth")
    return f"{kind} {inner}{f'-{depth}' if depth else ''}"


def _optimizer(optimizer: ConfigValues, hooks: list[ConfigValues]) -> str | None:
    text = _short(optimizer.text("type"))
    if not text:
        return None
    extra = {"momentum": optimizer.number("momentum"), "nesterov": optimizer.flag("nesterov")}
    told = ", ".join(f"{name}={value}" for name, value in extra.items() if value)
    text += f"({told})" if told else ""
    types = [_short(hook.text("type")) for hook in hooks]
    return text + "".join(f", {word}" for hook, word in _TURNING if hook in types)


def _short(kind: str | None) -> str | None:
    return kind.rpartition(".")[2] if kind else None
