# Schedules of the published recipes with a warmup over a share of their first stage, which suites
# vary; 0 is none.
#   param_scheduler = _base_.imagenet_90e
imagenet_90e = [
    dict(type="WarmupShareLR", share=0.0, total=30 * 5005, by_epoch=False),
    dict(type="MultiStepLR", by_epoch=True, milestones=[30, 60, 80], gamma=0.1),
]
coco_4x = [
    dict(type="WarmupShareLR", share=0.0, total=300_000, by_epoch=False),
    dict(type="MultiStepLR", by_epoch=False, milestones=[300_000, 340_000], gamma=0.1),
]
