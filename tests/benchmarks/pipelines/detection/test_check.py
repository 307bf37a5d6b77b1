"""Every way a COCO data set can be unusable, said in one line before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import benchmarks.pipelines.detection  # noqa: F401
from benchmarks.errors import UsageError
from benchmarks.pipelines.detection.check import (
    check_dataset,
    check_evaluator,
    check_num_classes,
    check_other_images,
    check_same_classes,
)
from benchmarks.pipelines.detection.coco_file import IMAGES, are_boxes, is_box, what_is_missing

Config = dict[str, Any]


def coco_file() -> Config:
    return {
        "images": [
            {"id": 1, "file_name": "empty.png", "height": 8, "width": 8},
            {"id": 2, "file_name": "cat.png", "height": 8, "width": 8},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 2,
                "category_id": 3,
                "bbox": [1, 1, 4, 4],
                "area": 16,
                "iscrowd": 0,
                "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]],
            }
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "train").mkdir()
    (tmp_path / "annotations").mkdir()
    cv2.imwrite(str(tmp_path / "train" / "cat.png"), np.zeros((8, 8), dtype=np.uint8))
    write(tmp_path, coco_file())
    return tmp_path


def write(root: Path, content: object) -> None:
    path = root / "annotations" / "train.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def config(root: Path, **changes: object) -> Config:
    return {
        "type": "CocoDataset",
        "data_root": f"{root}/",
        "ann_file": "annotations/train.json",
        "data_prefix": {"img": "train/"},
        "metainfo": {"classes": ("cat",)},
        "pipeline": [{"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}],
        **changes,
    }


def complaint(dataset_cfg: Config) -> str:
    with pytest.raises(UsageError) as raised:
        check_dataset(dataset_cfg)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_sound_data_set_passes(root: Path) -> None:
    check_dataset(config(root))
    check_dataset(config(root, type="mmdet.CocoDataset", test_mode=True))


def test_absolute_paths_need_no_data_root(root: Path) -> None:
    absolute = {
        "ann_file": f"{root}/annotations/train.json",
        "data_prefix": {"img": f"{root}/train"},
    }
    check_dataset(config(root, data_root=None, **absolute))


def test_missing_data_root(root: Path) -> None:
    message = complaint(config(root / "nowhere"))
    assert message.startswith(f"data root {root / 'nowhere'} is no folder")
    assert "data_root" in message.split(":")[1]


def test_missing_annotation_file(root: Path) -> None:
    message = complaint(config(root, ann_file="annotations/val.json"))
    assert message.startswith(f"annotation file {root / 'annotations' / 'val.json'} is missing")


@pytest.mark.parametrize(
    ("content", "complains_of"),
    [
        ("<annotation><folder>VOC2012</folder></annotation>", "is not JSON"),
        ("0 0.5 0.5 0.2 0.2\n", "is not JSON"),
        ("", "is not JSON"),
        ({"version": "5.0.1", "shapes": [], "imagePath": "a.png"}, "no list 'images'"),
        ([{"image_id": 2, "category_id": 3, "bbox": [1, 1, 4, 4], "score": 0.9}], "holds a list"),
        ({"images": [], "annotations": {}, "categories": []}, "no list 'annotations'"),
        ({**coco_file(), "images": [{"id": 1}]}, "images[0] lacks 'file_name'"),
        ({**coco_file(), "categories": ["cat"]}, "categories[0] lacks 'id'"),
        ({**coco_file(), "images": [], "annotations": []}, "lists no images"),
    ],
)
def test_annotation_file_of_another_format(root: Path, content: object, complains_of: str) -> None:
    write(root, content)
    message = complaint(config(root))
    assert str(root / "annotations" / "train.json") in message
    assert complains_of in message


def test_an_annotation_file_that_is_no_text(root: Path) -> None:
    (root / "annotations" / "train.json").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    assert "is not JSON" in complaint(config(root))


@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "bbox", "area"])
def test_annotations_lack_what_mmdet_reads(root: Path, key: str) -> None:
    content = coco_file()
    del content["annotations"][0][key]
    write(root, content)
    assert f"annotations[0] lacks '{key}'" in complaint(config(root))


def test_masks_and_crowd_flags_are_asked_for_only_where_they_are_read(root: Path) -> None:
    content = coco_file()
    del content["annotations"][0]["segmentation"], content["annotations"][0]["iscrowd"]
    write(root, content)
    assert "lacks 'segmentation'" in complaint(config(root))
    boxes_only = [{"type": "LoadAnnotations", "with_bbox": True}]
    check_dataset(config(root, pipeline=boxes_only))
    assert "lacks 'iscrowd'" in complaint(config(root, pipeline=boxes_only, test_mode=True))


def test_missing_image_folder(root: Path) -> None:
    message = complaint(config(root, data_prefix={"img": "train2017/"}))
    assert message.startswith(f"image folder {root / 'train2017'} is missing")


def test_no_image_folder_named(root: Path) -> None:
    assert "no 'img'" in complaint(config(root, data_prefix={"img_path": "train/"}))


def test_missing_first_annotated_image(root: Path) -> None:
    (root / "train" / "cat.png").rename(root / "train" / "empty.png")
    assert complaint(config(root)).startswith(f"image {root / 'train' / 'cat.png'}")


def test_classes_that_the_file_lacks(root: Path) -> None:
    message = complaint(config(root, metainfo={"classes": ("cat", "dog")}))
    assert "no category 'dog' (1 of 2 classes missing; it has 'cat')" in message
    assert "metainfo.classes" in message


def test_without_metainfo_the_classes_are_cocos(root: Path) -> None:
    message = complaint(config(root, metainfo=None))
    assert "no category 'person' (79 of 80 classes missing" in message


def two_classes() -> Config:
    """An annotation of a cat, and one of a dog."""
    content = coco_file()
    content["categories"].append({"id": 1, "name": "dog"})
    content["annotations"].append({**content["annotations"][0], "id": 2, "category_id": 1})
    return content


def test_classes_in_another_order_than_the_files(root: Path) -> None:
    write(root, two_classes())
    check_dataset(config(root, metainfo={"classes": ("cat", "dog")}))
    check_dataset(config(root, metainfo={"classes": ("dog",)}))
    message = complaint(config(root, metainfo={"classes": ("dog", "cat")}))
    assert "lists its categories as 'cat', 'dog', metainfo.classes as 'dog', 'cat'" in message


def test_a_class_that_stands_twice(root: Path) -> None:
    content = two_classes()
    content["categories"][1]["name"] = "cat"
    write(root, content)
    assert "each name once" in complaint(config(root))


@pytest.mark.parametrize(
    ("entry", "change", "complains_of"),
    [
        ("annotations", {"id": 1}, "annotations[1] has the id 1 of an entry before it"),
        ("images", {"id": 1}, "images[1] has the id 1 of an entry before it"),
        ("categories", {"id": 3}, "categories[1] has the id 3 of an entry before it"),
        ("annotations", {"image_id": 7}, "annotations[1] has image_id 7, which none of its images"),
        ("annotations", {"image_id": "2"}, "annotations[1] has image_id '2', which none"),
        ("annotations", {"category_id": 9}, "has category_id 9, which none of its categories"),
        ("annotations", {"image_id": [2]}, "an id is no id"),
    ],
)
def test_ids_that_cannot_be(root: Path, entry: str, change: Config, complains_of: str) -> None:
    content = two_classes()
    content[entry][1] |= change
    write(root, content)
    message = complaint(config(root))
    assert message.startswith(f"annotation file {root / 'annotations' / 'train.json'}")
    assert complains_of in message


BAD_BOXES: list[Any] = [
    [1, 1, -4, 4],
    [1, 1, 4, -0.5],
    [1, 1, 4, float("nan")],
    [float("inf"), 1, 4, 4],
    [1, 1, 4],
    [1, 1, 4, 4, 4],
    [1, 1, 4, "4"],
    [1, 1, 4, None],
    "1144",
    None,
    {},
]
GOOD_BOXES: list[Any] = [[0, 0, 0, 0], [-0.5, 1, 4.5, 4], [1, 1, 4, 4]]


@pytest.mark.parametrize("box", BAD_BOXES)
def test_boxes_that_are_none(root: Path, box: Any) -> None:
    content = two_classes()
    content["annotations"][1]["bbox"] = box
    write(root, content)
    assert "annotations[1] has bbox " in complaint(config(root))


@pytest.mark.parametrize("box", GOOD_BOXES)
def test_boxes_may_be_empty_and_begin_outside(root: Path, box: Any) -> None:
    content = two_classes()
    content["annotations"][1]["bbox"] = box
    write(root, content)
    check_dataset(config(root))


@pytest.mark.parametrize("box", [*BAD_BOXES, *GOOD_BOXES])
def test_all_boxes_at_once_are_judged_as_one_by_one(box: Any) -> None:
    assert are_boxes([*GOOD_BOXES, box]) == is_box(box)
    assert are_boxes([box]) == is_box(box)


def test_a_part_of_coco_is_said_to_be_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "benchmarks.pipelines.detection.check.print_log", lambda line, *_: said.append(line)
    )
    check_dataset(config(root))
    assert not said
    ann_file = root / "annotations" / "instances_val2017.json"
    (root / "annotations" / "train.json").rename(ann_file)
    check_dataset(config(root, ann_file="annotations/instances_val2017.json"))
    assert said == [f"{ann_file}: 2 of COCO's 5,000 images: results are not COCO's"]
    monkeypatch.setenv("RANK", "1")
    check_dataset(config(root, ann_file="annotations/instances_val2017.json"))
    assert len(said) == 1


def test_all_of_coco_is_passed_over_in_silence() -> None:
    for name, images in IMAGES.items():
        assert what_is_missing(Path(name), images) is None
        assert what_is_missing(Path(name), images - 1) is not None


def test_both_splits_number_the_same_classes(root: Path) -> None:
    one, other = (config(root, metainfo={"classes": names}) for names in (("cat",), ("dog",)))
    check_same_classes(one, one)
    check_same_classes(one, {**other, "type": "VOCDataset"})
    with pytest.raises(UsageError, match=r"1 classes \('cat'\), the validation set 1 \('dog'\)"):
        check_same_classes(one, other)


def test_validation_on_the_training_annotations_is_refused(root: Path) -> None:
    train = config(root)
    check_other_images(train, config(root, ann_file="annotations/val.json"))
    check_other_images(train, config(root / "elsewhere"))
    absolute = config(root, data_root=None, ann_file=f"{root}/train/../annotations/train.json")
    for val in (train, absolute):
        with pytest.raises(UsageError, match=r"both read annotations/train\.json: give") as raised:
            check_other_images(train, val)
        assert "\n" not in str(raised.value)


def test_a_head_with_fewer_outputs_than_classes_is_named(root: Path) -> None:
    three = config(root, metainfo={"classes": ("cat", "dog", "owl")})

    def detector(box: int, mask: int) -> Config:
        heads = [{"type": "Shared2FCBBoxHead", "num_classes": n} for n in (3, box)]
        return {
            "type": "CascadeRCNN",
            "rpn_head": {"type": "RPNHead", "num_classes": 1},
            "roi_head": {
                "bbox_head": heads,
                "mask_head": {"type": "FCNMaskHead", "num_classes": mask},
            },
        }

    check_num_classes(three, detector(3, 3))
    check_num_classes(three, detector(80, 4))
    for heads, path in (((2, 3), "bbox_head.1"), ((3, 2), "mask_head")):
        says = rf"3 classes \('cat', 'dog', 'owl'\), but model\.roi_head\.{path} only 2 outputs"
        with pytest.raises(UsageError, match=says) as raised:
            check_num_classes(three, detector(*heads))
        assert f"set model.roi_head.{path}.num_classes=3" in str(raised.value)
    check_num_classes({**three, "type": "VOCDataset"}, detector(2, 2))


def test_unknown_dataset_type(root: Path) -> None:
    assert "'CocoDatset' is not known" in complaint(config(root, type="CocoDatset"))


def test_datasets_with_a_format_of_their_own_are_checked_for_files_only(root: Path) -> None:
    write(root, "<annotation/>")
    check_dataset(config(root, type="VOCDataset"))
    check_dataset(config(root, type="CocoPanopticDataset"))
    assert "is missing" in complaint(config(root, type="VOCDataset", ann_file="trainval.txt"))


def test_data_behind_a_storage_backend_are_left_to_it(root: Path) -> None:
    check_dataset(config(root, data_root="s3://bucket/coco/"))
    check_dataset(config(root / "nowhere", backend_args={"backend": "petrel"}))


def test_the_evaluator_reads_the_data_sets_file(root: Path) -> None:
    dataset_cfg = config(root)
    evaluator: Config = {"type": "CocoMetric", "ann_file": f"{root}/annotations/train.json"}
    check_evaluator(evaluator, dataset_cfg)
    check_evaluator({"type": "CocoMetric"}, dataset_cfg)
    check_evaluator({"type": "VOCMetric", "ann_file": "nowhere"}, dataset_cfg)
    other = root / "other.json"
    with pytest.raises(UsageError, match=r"other\.json of the evaluator is missing"):
        check_evaluator({**evaluator, "ann_file": str(other)}, dataset_cfg)
    other.write_text(json.dumps(coco_file()))
    with pytest.raises(UsageError, match="but the data come from"):
        check_evaluator({**evaluator, "ann_file": str(other)}, dataset_cfg)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "split", "year", "classes"),
    [("coco_small", "train", "2017", None), ("nuclei", "val", "", ("nucleus",))],
)
def test_real_data_sets_pass(
    shared_data: Path, name: str, split: str, year: str, classes: tuple[str, ...] | None
) -> None:
    check_dataset(
        config(
            shared_data / name,
            ann_file=f"annotations/instances_{split}{year}.json",
            data_prefix={"img": f"{split}{year}/"},
            metainfo=None if classes is None else {"classes": classes},
            test_mode=True,
        )
    )
