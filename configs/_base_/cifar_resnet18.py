# ResNet-18 for 32 px: ImageNet's stages behind a 3×3 stem without pooling, 20 convolutions.
model = dict(
    type="TorchvisionClassifier",
    arch="cifar_resnet",
    num_classes=10,
    arch_options=dict(widths=(64, 128, 256, 512), blocks_per_stage=2),
    # CIFAR-10's own channel means and deviations
    data_preprocessor=dict(
        type="ImagePreprocessor", mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7]
    ),
)
optim_wrapper = dict(
    type="OptimWrapper", paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
)
