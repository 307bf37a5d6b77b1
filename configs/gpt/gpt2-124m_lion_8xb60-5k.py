# Warmup in GPT training (Kosson et al. 2024; figure number not read), Lion (of lion-pytorch, which
# MMEngine registers where it is installed). lr a tenth of AdamW's and weight decay ten times as
# much, as Lion's authors recommend, so that both have one relaxation time (ours).
_base_ = ["../_base_/gpt2.py"]

optim_wrapper = dict(optimizer=dict(_delete_=True, type="Lion", lr=6e-5, weight_decay=1.0))
