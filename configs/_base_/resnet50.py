# ResNet-50 for ImageNet under SGDM as Goyal et al. (2017), section 5.1, train it: the last gain of
# each residual branch begins at 0, and only matrices decay. (Decay on norms would disturb the
# equilibrium of all weights around them.)
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
