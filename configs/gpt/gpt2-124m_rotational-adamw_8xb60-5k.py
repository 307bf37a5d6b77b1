# RotationalAdamW (Kosson et al. 2023, Rotational Equilibrium) in the recipe of Warmup in GPT
# training (Kosson et al. 2024; figure number not read). Angles follow lr itself, as LionAR's do: by
# its root a warmup would take less from them.
_base_ = ["../_base_/gpt2.py"]

optim_wrapper = dict(optimizer=dict(type="RotationalAdamW", schedule="linear"))
