# ResNet-50 by the recipe of Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 5.1:
# the ImageNet run of SMD's Fig. 3. 8 GPUs × 32 images; --auto-scale-lr for any other batch.
# Their 5 epochs of warmup are for larger batches than this one.
_base_ = ["../_base_/imagenet.py", "../_base_/classification_runtime.py"]

model = dict(
    type="TorchvisionClassifier",
    arch="resnet50",
    num_classes=1000,
    arch_options=dict(zero_init_residual=True),
    data_preprocessor=dict(
        type="ImagePreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
    init_cfg=dict(type="Normal", layer="Linear", std=0.01),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(type="MultiStepLR", by_epoch=True, milestones=[30, 60, 80], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=1)
auto_scale_lr = dict(base_batch_size=256)
