"""What can be wrong with a COCO-format data set, found before anything is built."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from benchmarks.components import type_name
from benchmarks.errors import UsageError
from benchmarks.pipelines.detection.coco_file import Coco, load_coco, what_is_missing


def check_dataset(dataset_cfg: Mapping[str, Any]) -> None:
    """Check that an mmdet dataset config finds its files, and in the format it reads.

    Files are checked for every dataset, contents for those that read their annotations the
    way ``CocoDataset`` does. Data behind a storage backend is left to that backend. Parses
    the annotation file once. A file named as one of COCO 2017's that lists fewer images is
    said to do so in one warning.

    Args:
        dataset_cfg: the ``dataset`` part of a dataloader's config, without wrappers such as
            ``RepeatDataset``.

    Raises:
        UsageError: unknown dataset type; data root, annotation file, image folder or the
            first annotated image missing; an annotation file of another format, with ids or
            boxes that cannot be, or with other classes than the dataset's, or in another
            order. One line that says what to do.
    """
    if dataset_cfg.get("backend_args") or "://" in str(dataset_cfg.get("data_root")):
        return
    dataset_class = _dataset_class(dataset_cfg["type"])
    root = Path(dataset_cfg.get("data_root") or "")
    if not root.is_dir():
        raise UsageError(
            f"data root {root} is no folder: point train_dataloader.dataset.data_root and "
            "val_dataloader.dataset.data_root at the data set"
        )
    ann_file = root / dataset_cfg.get("ann_file", "")
    if not ann_file.is_file():
        raise UsageError(
            f"annotation file {ann_file} is missing: set the dataset's ann_file, "
            f"relative to data_root ({root})"
        )
    if not _reads_plain_coco(dataset_class):
        return
    coco = load_coco(ann_file, _annotation_keys(dataset_cfg))
    _check_classes(coco, ann_file, dataset_class, dataset_cfg.get("metainfo"))
    _check_images(coco, ann_file, root, dataset_cfg.get("data_prefix", {}))
    warning = what_is_missing(ann_file, len(coco["images"]))
    if warning and _is_first_process():
        print_log(warning, "current", logging.WARNING)


def check_same_classes(train_cfg: Mapping[str, Any], val_cfg: Mapping[str, Any]) -> None:
    """Check that two checked data sets number the same classes in the same way.

    Of those that don't read their annotations as ``CocoDataset`` does nothing is known.

    Args:
        train_cfg: the ``dataset`` part of the training dataloader's config.
        val_cfg: the ``dataset`` part of the validation dataloader's config.

    Raises:
        UsageError: their classes differ; what the model calls one, validation takes for another.
    """
    kinds = [_dataset_class(cfg["type"]) for cfg in (train_cfg, val_cfg)]
    if not all(map(_reads_plain_coco, kinds)):
        return
    train, val = (
        _classes(kind, cfg.get("metainfo"))
        for kind, cfg in zip(kinds, (train_cfg, val_cfg), strict=True)
    )
    if train != val:
        raise UsageError(
            f"the training set has {len(train)} classes ({_shorten(train)}), the validation set "
            f"{len(val)} ({_shorten(val)}): give both the same metainfo.classes"
        )


def check_other_images(train_cfg: Mapping[str, Any], val_cfg: Mapping[str, Any]) -> None:
    """Check that two checked data sets do not read the same annotations.

    Args:
        train_cfg: the ``dataset`` part of the training dataloader's config.
        val_cfg: the ``dataset`` part of the validation dataloader's config.

    Raises:
        UsageError: they do; scores would be those of the images trained on.
    """
    train, val = (
        os.path.realpath(os.path.join(cfg.get("data_root") or "", cfg["ann_file"]))
        for cfg in (train_cfg, val_cfg)
    )
    if train == val:
        raise UsageError(
            f"training and validation both read {train_cfg['ann_file']}: give "
            "train_dataloader.dataset.ann_file and val_dataloader.dataset.ann_file a file each"
        )


def check_num_classes(dataset_cfg: Mapping[str, Any], model_cfg: Mapping[str, Any]) -> None:
    """Check that each head has an output for every class of a checked data set.

    A head with more than that is left alone, as is an RPN, which knows one class. Of data sets that
    don't read their annotations as ``CocoDataset`` does nothing is known.

    Args:
        dataset_cfg: the ``dataset`` part of a dataloader's config.
        model_cfg: the config's ``model``.

    Raises:
        UsageError: a head has fewer; on a GPU that ends in a failed assertion of a kernel.
    """
    dataset_class = _dataset_class(dataset_cfg["type"])
    if not _reads_plain_coco(dataset_class):
        return
    classes = _classes(dataset_class, dataset_cfg.get("metainfo"))
    for path, num_classes in _heads(model_cfg, "model"):
        if num_classes < len(classes):
            raise UsageError(
                f"the data have {len(classes)} classes ({_shorten(classes)}), but {path} only "
                f"{num_classes} outputs: set {path}.num_classes={len(classes)}"
            )


def _heads(part: Any, path: str) -> Iterator[tuple[str, int]]:
    """Yield where in a model's config a component has ``num_classes``, and how many."""
    if isinstance(part, Mapping):
        if "type" in part and isinstance(part.get("num_classes"), int):
            yield path, part["num_classes"]
        children: Iterable[tuple[Any, Any]] = part.items()
    elif isinstance(part, (list, tuple)):
        children = enumerate(part)
    else:
        return
    for key, child in children:
        if key != "rpn_head":
            yield from _heads(child, f"{path}.{key}")


def check_evaluator(evaluator_cfg: Mapping[str, Any], dataset_cfg: Mapping[str, Any]) -> None:
    """Check that a ``CocoMetric`` scores against the file that the checked dataset reads.

    Otherwise the first validation, hours into a run, ends in an assertion.

    Args:
        evaluator_cfg: one metric of ``val_evaluator`` or ``test_evaluator``.
        dataset_cfg: the ``dataset`` part of the dataloader that goes with it.

    Raises:
        UsageError: its annotation file is missing, or another one than the dataset's.
    """
    ann_file = evaluator_cfg.get("ann_file")
    if type_name(evaluator_cfg) != "CocoMetric" or ann_file is None:
        return
    if evaluator_cfg.get("backend_args") or "://" in ann_file:
        return
    if not Path(ann_file).is_file():
        raise UsageError(
            f"annotation file {ann_file} of the evaluator is missing: set val_evaluator.ann_file"
        )
    of_dataset = Path(dataset_cfg.get("data_root") or "") / dataset_cfg["ann_file"]
    if not of_dataset.samefile(ann_file):
        raise UsageError(
            f"the evaluator scores against {ann_file}, but the data come from {of_dataset}: "
            "give val_evaluator.ann_file the dataset's file"
        )


def _dataset_class(name: str | type) -> type:
    """Look a dataset type up as the Runner will, by short or scoped name."""
    if isinstance(name, type):
        return name
    with DefaultScope.overwrite_default_scope("mmdet"):
        found = DATASETS.get(name)
    if found is None:
        raise UsageError(f"dataset type '{name}' is not known to mmdet: check its spelling")
    return found


def _classes(dataset_class: Any, metainfo: Mapping[str, Any] | None) -> tuple[str, ...]:
    classes = dataset_class._load_metainfo(metainfo).get("classes", ())
    return (classes,) if isinstance(classes, str) else tuple(classes)


def _reads_plain_coco(dataset_class: type) -> bool:
    """Tell plain COCO readers from those with a format of their own (panoptic, LVIS, VOC…)."""
    return issubclass(dataset_class, CocoDataset) and all(
        getattr(dataset_class, method) is getattr(CocoDataset, method)
        for method in ("load_data_list", "parse_data_info")
    )


def _annotation_keys(dataset_cfg: Mapping[str, Any]) -> list[str]:
    """List what each annotation needs: COCOeval wants iscrowd, a mask loader segmentation."""
    keys = ["id", "image_id", "category_id", "bbox", "area"]
    if dataset_cfg.get("test_mode"):
        keys.append("iscrowd")
    if any(step.get("with_mask") for step in dataset_cfg.get("pipeline", ())):
        keys.append("segmentation")
    return keys


def _check_classes(
    coco: Coco,
    ann_file: Path,
    dataset_class: type,
    metainfo: Mapping[str, Any] | None,
) -> None:
    """mmdet labels in the file's order and drops what the file lacks; both silently."""
    classes = _classes(dataset_class, metainfo)
    known = [category["name"] for category in coco["categories"]]
    absent = [name for name in classes if name not in known]
    if absent:
        raise UsageError(
            f"annotation file {ann_file} has no category '{absent[0]}' ({len(absent)} of "
            f"{len(classes)} classes missing; it has {_shorten(known)}): "
            "set the dataset's metainfo.classes and the model's num_classes"
        )
    in_the_files_order = [name for name in known if name in classes]
    if in_the_files_order != list(classes):
        raise UsageError(
            f"annotation file {ann_file} lists its categories as {_shorten(in_the_files_order)}, "
            f"metainfo.classes as {_shorten(classes)}: mmdet numbers labels by the file, so that "
            "names would be wrong; give metainfo.classes the file's order, each name once"
        )


def _check_images(coco: Coco, ann_file: Path, root: Path, data_prefix: Mapping[str, str]) -> None:
    if "img" not in data_prefix:
        raise UsageError("the dataset's data_prefix has no 'img': set it to the image folder")
    folder = root / data_prefix["img"]
    if not folder.is_dir():
        raise UsageError(
            f"image folder {folder} is missing: set the dataset's data_prefix.img, "
            f"relative to data_root ({root})"
        )
    for part in ("images", "annotations"):
        if not coco[part]:
            raise UsageError(f"annotation file {ann_file} lists no {part}: give one that does")
    annotated = {annotation["image_id"] for annotation in coco["annotations"]}
    first = next((image for image in coco["images"] if image["id"] in annotated), coco["images"][0])
    path = folder / first["file_name"]
    if not path.is_file():
        raise UsageError(
            f"image {path}, the first in {ann_file}, is missing: "
            "set the dataset's data_prefix.img to the folder that holds it"
        )


def _is_first_process() -> bool:
    """Whether this is the one process of a launch that speaks, under any launcher."""
    ranks = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    return all(os.environ.get(rank, "0") == "0" for rank in ranks)


def _shorten(names: Sequence[str], most: int = 5) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:most])
    return f"{listed}, …" if len(names) > most else listed or "none"
