# SMD (Wan et al.), Fig. 2, SGDM: ResNet-50 at a fixed learning rate of .2 for 450,000 steps, weight
# decay 1e-4, momentum .9. The batch is not stated; 256 is what so many steps imply. Network and
# augmentation are those of Fig. 3 (ours). Every step is measured, for the figure shows single steps
# beside means of 200; its layer2.0.conv2 is network.layer2.0.conv2 in the records.
_base_ = ["../_base_/resnet50.py"]

optim_wrapper = dict(optimizer=dict(lr=0.2))
train_dataloader = dict(sampler=dict(type="InfiniteSampler"))
train_cfg = dict(by_epoch=False, max_iters=450_000, val_interval=10_000)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=10_000)
)
custom_hooks = [dict(type="SMDHook", interval=1)]
