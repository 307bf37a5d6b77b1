# AdamW's run with LionA of Kosson et al. 2024 (the pairing is ours): its updates have the norm of
# AdamW's, so that lr and weight decay carry over. Signs are less alike from step to step than
# AdamW's updates: its equilibrium angle is a fifth larger.
_base_ = ["./resnet50_adamw_8xb32-90e.py"]

optim_wrapper = dict(optimizer=dict(type="LionA"))
