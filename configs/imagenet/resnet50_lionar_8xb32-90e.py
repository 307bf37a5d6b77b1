# AdamW's run with LionAR of Kosson et al. 2024 (the pairing is ours): lr and weight decay carry
# over, and all matrices turn from the first step on by the angle that is equilibrium in the first
# stage, AdamW's and SGD's. At each drop the angle falls with lr (schedule="linear"), as SGD's does
# at once, and does not climb back.
_base_ = ["./resnet50_adamw_8xb32-90e.py"]

optim_wrapper = dict(optimizer=dict(type="LionAR"))
