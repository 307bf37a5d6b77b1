# Warmup in GPT training (Kosson et al. 2024; figure number not read), LionAR without momentum: each
# step goes along the signs of one gradient.
_base_ = ["./gpt2-124m_lionar_8xb60-5k.py"]

optim_wrapper = dict(optimizer=dict(beta=0.0))
