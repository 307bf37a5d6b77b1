# LionAR as Kosson et al., "Analyzing & Reducing the Need for Learning Rate Warmup in GPT Training"
# (2024; figure number not read), find best without a warmup: longer momentum, Nesterov, inverse
# bias correction. One step turns by less than with beta=.9, but steps are more alike, so that many
# get weights about as far. They trained GPT-2; whether it does the same for ResNet-50 is not known.
# Not run at full size.
_base_ = ["./resnet50_lionar_8xb32-90e.py"]

optim_wrapper = dict(optimizer=dict(beta=0.98, nesterov=True, inverse_bias_correction=True))
