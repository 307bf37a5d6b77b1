# The same for Faster R-CNN: the miniature without its mask head.
_base_ = ["./digit-scenes_mask-rcnn.py"]

model = dict(type="FasterRCNN", roi_head=dict(mask_roi_extractor=None, mask_head=None))
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="PackDetInputs"),
        ]
    )
)
val_evaluator = dict(metric="bbox")
