# What classification's embedded replicas train and on what: a BN ResNet of 9 convolutions on 5,000
# real digits. Label noise, drawn anew each time, keeps gradients from vanishing, which the closed
# form of Δ/Δ* needs; digits are shifted, for these runs are longer than the demo's.
_base_ = ["../demo/resnet_digits.py"]

train_dataloader = dict(
    dataset=dict(
        transforms=[dict(type="Grayscale"), dict(type="RandomCrop", size=14, padding=2)],
        label_noise=0.3,
    )
)
