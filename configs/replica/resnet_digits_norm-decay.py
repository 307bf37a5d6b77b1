# A control of the noise-free run: decay on the norms' γ and β, too. They shrink, and with them the
# variance before the norms that follow, down to their eps. There scale invariance ends, and the
# law fed with measured moments must break.
_base_ = ["./resnet_digits_noise-free.py"]

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=1.0))
