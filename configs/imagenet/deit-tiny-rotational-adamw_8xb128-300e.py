# Rotational Equilibrium (Kosson et al. 2023; figure number not read), DeiT-tiny under rotational
# AdamW: lr and weight decay carry over. What does not decay does not turn. Theirs adds learnable
# gains to a transformer whose norms are fixed; this one has none but LayerNorm's.
_base_ = ["./deit-tiny_8xb128-300e.py"]

optim_wrapper = dict(optimizer=dict(type="RotationalAdamW"))
