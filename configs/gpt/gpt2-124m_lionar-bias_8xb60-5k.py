# Warmup in GPT training (Kosson et al. 2024; figure number not read), LionAR as they find best
# without one: longer momentum, Nesterov, inverse bias correction.
_base_ = ["./gpt2-124m_lionar_8xb60-5k.py"]

optim_wrapper = dict(optimizer=dict(beta=0.98, nesterov=True, inverse_bias_correction=True))
