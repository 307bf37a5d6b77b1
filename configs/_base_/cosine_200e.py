# 200 epochs: 5 of linear warmup, then a cosine to 0.
_base_ = ["./cosine.py"]

param_scheduler = [
    dict(_base_.linear_warmup, end=5),
    dict(_base_.cosine_to_zero, begin=5, end=200, T_max=195),
]
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
