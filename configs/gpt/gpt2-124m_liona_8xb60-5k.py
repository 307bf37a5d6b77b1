# Warmup in GPT training (Kosson et al. 2024; figure number not read), LionA: updates of the ℓ2 norm
# of AdamW's, so that lr and weight decay carry over.
_base_ = ["../_base_/gpt2.py"]

optim_wrapper = dict(optimizer=dict(_delete_=True, type="LionA", lr=6e-4, weight_decay=0.1))
