# The same run with LionAR in SGD's place. lr and weight decay are AdamW's usual ones, and such
# that all matrices turn from the first step on by the angle that is SGD's equilibrium in its first
# stage. At each drop the angle falls with lr (schedule="linear"), as SGD's does at once, and does
# not climb back. Not run at full size.
_base_ = ["./resnet50_goyal_8xb32-90e.py"]

optim_wrapper = dict(optimizer=dict(_delete_=True, type="LionAR", lr=1e-3, weight_decay=0.1))
