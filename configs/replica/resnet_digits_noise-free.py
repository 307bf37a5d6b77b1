# A control: without label noise the digits are soon learned, the gradients that drive the norms
# fade, and Δ/Δ* must fall below its closed form, while the law fed with measured moments holds.
_base_ = ["./resnet_digits.py"]

train_dataloader = dict(dataset=dict(label_noise=0.0))
optim_wrapper = dict(optimizer=dict(weight_decay=0.01))
