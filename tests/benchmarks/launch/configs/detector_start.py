# Where detector.py's comparison starts from: a detector that finds something.
_base_ = ["./detector.py"]

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=3e-3, weight_decay=0.05),
)
train_cfg = dict(max_iters=40, val_interval=40)
default_hooks = dict(checkpoint=dict(interval=40))
custom_hooks = []
