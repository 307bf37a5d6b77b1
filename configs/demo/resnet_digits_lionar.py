# The same network and digits under LionAR, whose weights turn by a set angle from the first step
# on. Nothing relaxes, so that no stage has to last for relaxation times: 2,200 steps, not 5,500.
# lr · weight_decay is such that this angle is the plain run's Δ* in its first stage. lr itself
# moves gains and biases; top-1 of single runs on the validation digits depends little on either.
_base_ = ["./resnet_digits.py"]

optim_wrapper = dict(optimizer=dict(_delete_=True, type="LionAR", lr=0.01, weight_decay=0.25))
param_scheduler = dict(milestones=[1650])
train_cfg = dict(max_iters=2200)
