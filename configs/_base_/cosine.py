# The two parts of a learning rate that warms up linearly, then falls to 0 as a cosine, both by
# iterations; a config adds the epochs:
#   param_scheduler = [
#       dict(_base_.linear_warmup, end=5),
#       dict(_base_.cosine_to_zero, begin=5, end=200, T_max=195),
#   ]
linear_warmup = dict(
    type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, convert_to_iter_based=True
)
cosine_to_zero = dict(
    type="CosineAnnealingLR", eta_min=0.0, by_epoch=True, convert_to_iter_based=True
)
