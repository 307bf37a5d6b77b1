"""What the detection configs add to mmdet's own: readied mmcv ops, the hook, a stated seed.

They read COCO 2017 from data/coco. Another data set in COCO's format, nuclei say, is a matter of
--cfg-options::

    train_dataloader.dataset.data_root=data/nuclei/
    train_dataloader.dataset.ann_file=annotations/instances_train.json
    train_dataloader.dataset.data_prefix.img=train/
    "train_dataloader.dataset.metainfo.classes=[nucleus]"
    val_dataloader.dataset.data_root=data/nuclei/
    val_dataloader.dataset.ann_file=annotations/instances_val.json
    val_dataloader.dataset.data_prefix.img=val/
    "val_dataloader.dataset.metainfo.classes=[nucleus]"
    val_evaluator.ann_file=data/nuclei/annotations/instances_val.json
    model.roi_head.bbox_head.num_classes=1
    model.roi_head.mask_head.num_classes=1

The last but one in Faster and Mask R-CNN, the last in Mask R-CNN alone; RetinaNet has
model.bbox_head.num_classes.
"""

custom_imports = dict(imports=["smd_hooks", "benchmarks.pipelines.detection"])
custom_hooks = [dict(type="SMDHook", interval=50)]
randomness = dict(seed=0)
