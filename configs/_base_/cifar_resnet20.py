# ResNet-20 of He et al. (2016): three stages of 16, 32 and 64 channels, but for projections where
# shapes change (theirs pads with zeros).
_base_ = ["./cifar_resnet18.py"]

model = dict(arch_options=dict(widths=(16, 32, 64), blocks_per_stage=3))
