# Rotational Equilibrium (Kosson et al. 2023; figure number not read), the need for warmup: batch
# 8,192, 10 epochs, no warmup, learning rates .1, .2, .4, … 51.2. Here it is 3.2, .1 scaled with the
# batch; for others:
#   --cfg-options optim_wrapper.optimizer.lr=…
# The schedule after the missing warmup was not readable: a cosine to 0 is ours.
# For backward, 1,024 images take 82 GiB on each GPU in float32 and 42 in half precision (--amp), to
# which weights, gradients and workspaces come.
_base_ = ["./resnet50_cosine_8xb32-90e.py"]

train_dataloader = dict(batch_size=1024)
optim_wrapper = dict(optimizer=dict(lr=3.2))
param_scheduler = [dict(_base_.cosine_to_zero, end=10, T_max=10)]
train_cfg = dict(max_epochs=10)
auto_scale_lr = dict(base_batch_size=8192)
custom_hooks = [dict(type="SMDHook", interval=1)]
