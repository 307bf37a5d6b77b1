# ImageNet's four stages in fewer steps: on 5,000 real digits, lr ÷ 10 three times, with stages
# whose lengths in relaxation times, τ = (1 − momentum) / (4 · lr · weight_decay), are
#   stage 1: lr .1,    τ =     50 steps,   500 steps = 10 τ
#   stage 2: lr .01,   τ =    500 steps, 3,000 steps = 6 τ
#   stage 3: lr .001,  τ =  5,000 steps, 2,000 steps = .4 τ
#   stage 4: lr .0001, τ = 50,000 steps, 1,000 steps = .02 τ
# The first two reach equilibrium, the last two end long before it, as ImageNet's do. Label noise,
# drawn anew each time, keeps gradients from vanishing, and decay spares norms and biases: the
# closed form needs both.
_base_ = ["../demo/resnet_digits.py"]

train_dataloader = dict(
    dataset=dict(
        transforms=[dict(type="Grayscale"), dict(type="RandomCrop", size=14, padding=2)],
        label_noise=0.3,
    )
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.005))
param_scheduler = dict(milestones=[500, 3500, 5500])
# Validated after each of the last five steps of a stage, after the first of the next, and at the
# end: what a drop of the learning rate does to the accuracy at once.
train_cfg = dict(
    max_iters=6500,
    val_interval=6500,
    dynamic_intervals=[
        *((497, 1), (503, 6500)),
        *((3497, 1), (3503, 6500)),
        *((5497, 1), (5503, 6500)),
    ],
)
default_hooks = dict(checkpoint=dict(interval=6500))
