# The question of SMD's Fig. 3 put to AdamW, with the stages of Goyal et al. (ours, in no paper). lr
# and weight decay are usual for AdamW, and such that its equilibrium angle is SGD's there.
_base_ = ["./resnet50_goyal_8xb32-90e.py"]

optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.1))
