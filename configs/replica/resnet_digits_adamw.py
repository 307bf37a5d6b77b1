# The same stages under AdamW, whose relaxation time is τ = 1 / (2 · lr · weight_decay):
#   stage 1: lr .1,    τ =     50 steps,   500 steps = 10 τ
#   stage 2: lr .01,   τ =    500 steps, 3,000 steps = 6 τ
#   stage 3: lr .001,  τ =  5,000 steps, 2,000 steps = .4 τ
#   stage 4: lr .0001, τ = 50,000 steps, 1,000 steps = .02 τ
# Rescaled weights end √1000 times smaller. Their norms' eps then is a hundredth of the variance if
# they were as large as lr .1 makes them before, and far more at a smaller lr of the same τ; in
# proportion the weights move alike at any. So they are initialised at that size, lr · √τ = .7. What
# is not scale-invariant does not move alike: the classifier's lr is .01, that of the norms' gains
# and biases .001.
# Second moments outlast the gradients that they divide, but not the changes of the norm from stage
# 2 on: 1 / (1 − beta2) = 100 steps. Preconditioned gradients are orthogonal to the weight, as
# gradients are, only as far as the second moments of a filter are alike: what is left pushes the
# weight onto coordinates with small gradients, and its norm up. Rows of many weights help.
_base_ = ["./resnet_digits.py"]

model = dict(
    arch_options=dict(widths=(32, 64, 64)),
    init_cfg=dict(type="Normal", layer="Conv2d", std=0.7),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=0.1, betas=(0.9, 0.99), weight_decay=0.1),
    paramwise_cfg=dict(
        custom_keys={
            ".bn.": dict(lr_mult=0.01, decay_mult=0.0),
            "fc.weight": dict(lr_mult=0.1),
            "fc.bias": dict(lr_mult=0.1, decay_mult=0.0),
        }
    ),
)
