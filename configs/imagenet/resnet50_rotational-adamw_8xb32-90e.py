# AdamW's run with the rotational AdamW of Kosson et al. 2023 (the pairing is ours): lr and weight
# decay carry over. The angle follows the root of lr at each drop, at once, as equilibrium does.
_base_ = ["./resnet50_adamw_8xb32-90e.py"]

optim_wrapper = dict(optimizer=dict(type="RotationalAdamW"))
