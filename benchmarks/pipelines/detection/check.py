"""What can be wrong with a COCO-format data set, found before anything is built."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope

from benchmarks.components import type_name
from benchmarks.errors import UsageError


def check_dataset(dataset_cfg: Mapping[str, Any]) -> None:
    """Check that an mmdet dataset config finds its files, and in the format it reads.

    Files are checked for every dataset, contents for those that read their annotations the
    way ``CocoDataset`` does. Data behind a storage backend is left to that backend. Parses
    the annotation file once: some ten seconds for all of COCO.

    Args:
        dataset_cfg: the ``dataset`` part of a dataloader's config, without wrappers such as
            ``RepeatDataset``.

    Raises:
        UsageError: unknown dataset type; data root, annotation file, image folder or the
            first annotated image missing; an annotation file of another format, or one
            without the dataset's classes. One line that says what to do.
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
    coco = _load_coco(ann_file, _annotation_keys(dataset_cfg))
    _check_classes(coco, ann_file, dataset_class, dataset_cfg.get("metainfo"))
    _check_images(coco, ann_file, root, dataset_cfg.get("data_prefix", {}))


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


def _load_coco(ann_file: Path, annotation_keys: Sequence[str]) -> dict[str, Any]:
    advice = "give a COCO instances file (instances_*.json)"
    try:
        coco = json.loads(ann_file.read_bytes())
    except ValueError as error:
        raise UsageError(f"annotation file {ann_file} is not JSON ({error}): {advice}") from error
    if not isinstance(coco, dict):
        raise UsageError(
            f"annotation file {ann_file} holds a {type(coco).__name__}, not COCO's dict of images, "
            f"annotations and categories (a results file?): {advice}"
        )
    needed = {
        "images": ["id", "file_name", "height", "width"],
        "annotations": annotation_keys,
        "categories": ["id", "name"],
    }
    for part, keys in needed.items():
        entries = coco.get(part)
        if not isinstance(entries, list):
            raise UsageError(
                f"annotation file {ann_file} has no list '{part}', so it is not COCO format: "
                f"{advice}"
            )
        for index, entry in enumerate(entries):
            lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lacking:
                raise UsageError(
                    f"annotation file {ann_file}: {part}[{index}] lacks '{lacking[0]}', "
                    f"so it is not COCO format: {advice}"
                )
    return coco


def _check_classes(
    coco: Mapping[str, Any],
    ann_file: Path,
    dataset_class: type,
    metainfo: Mapping[str, Any] | None,
) -> None:
    """mmdet drops classes that the file lacks, silently, and shifts the labels of the rest."""
    classes = dataset_class._load_metainfo(metainfo).get("classes", ())  # type: ignore[attr-defined]
    known = [category["name"] for category in coco["categories"]]
    absent = [name for name in classes if name not in known]
    if absent:
        raise UsageError(
            f"annotation file {ann_file} has no category '{absent[0]}' ({len(absent)} of "
            f"{len(classes)} classes missing; it has {_shorten(known)}): "
            "set the dataset's metainfo.classes and the model's num_classes"
        )


def _check_images(
    coco: Mapping[str, Any], ann_file: Path, root: Path, data_prefix: Mapping[str, str]
) -> None:
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


def _shorten(names: Sequence[str], most: int = 5) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:most])
    return f"{listed}, …" if len(names) > most else listed or "none"
