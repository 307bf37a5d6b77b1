# Warmup in GPT training (Kosson et al. 2024; figure number not read): what makes LionAR do without
# a warmup, on LionA.
_base_ = ["./gpt2-124m_liona_8xb60-5k.py"]

optim_wrapper = dict(optimizer=dict(beta=0.98, nesterov=True, inverse_bias_correction=True))
