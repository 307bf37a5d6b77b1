# Warmup in GPT training (Kosson et al. 2024; figure number not read), LionAR: matrices, embeddings
# among them, turn from the first step on by the angle that AdamW's lr and weight decay come to.
_base_ = ["../_base_/gpt2.py"]

optim_wrapper = dict(optimizer=dict(_delete_=True, type="LionAR", lr=6e-4, weight_decay=0.1))
