# ResNet-50 for ImageNet under SGDM as Goyal et al. (2017) are known to train it: the last gain of
# each residual branch begins at 0, and only matrices decay. (Decay on norms would disturb the
# equilibrium of all weights around them.) Momentum is SMD's, a heavy ball of .9; whether Goyal et
# al. have Nesterov's instead was not read.
_base_ = ["./imagenet.py"]

model = dict(
    type="TorchvisionClassifier",
    arch="resnet50",
    num_classes=1000,
    arch_options=dict(zero_init_residual=True),
    init_cfg=dict(type="Normal", layer="Linear", std=0.01),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
